"""Samples on the training device: the same batches, each image decoded and sent once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.contract import UserError
from tests.helpers.training_runs import read_run
from training.config import Config, DataOptions
from training.data import Batch, Loader
from training.machine.distributed import SINGLE_PROCESS
from training.planning.placement import KeptImages, device_image_bytes, place_samples
from training.streaming.dataset import open_shard_dataset
from training.streaming.device_samples import DeviceSamples, Placement
from training.streaming.samples import SampleCache

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LABELS = ("a", "b", "c")


def take(
    shards: Any, count: int, on_device: bool, seen: int = 0, batch: int = 7, **data: Any
) -> tuple[list[Batch], list[str]]:
    config = Config(batch=batch, seed=5, data=DataOptions(**data))
    source = open_shard_dataset(shards.manifest, config.resolution, config.data)
    with Loader(source, config, seen, placement=Placement(CPU, on_device)) as loader:
        batches = list(itertools.islice(loader, count))
        return batches, [loader.warnings.get() for _ in range(loader.warnings.qsize())]


def assert_equal(batches: list[Batch], others: list[Batch]) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.images, other.images)
        assert batch.images.stride() == other.images.stride()
        assert torch.equal(batch.labels, other.labels)


@pytest.mark.parametrize(
    "data",
    [{}, {"mirror": True}, {"mirror": True, "labelled": 40}, {"memory_gb": 0.0}, {"channels": 4}],
)
@pytest.mark.parametrize(("seen", "batch"), [(0, 7), (98, 7), (205, 7), (0, 250)])
def test_batches_are_the_same_as_from_main_memory(
    small_shards: Callable[..., Any], data: dict[str, Any], seen: int, batch: int
) -> None:
    shards = small_shards(labels=LABELS, labelled=90)
    count = 45 if batch == 7 else 3  # three epochs, and more
    plain, _ = take(shards, count, False, seen, batch, **data)
    kept, _ = take(shards, count, True, seen, batch, **data)
    assert_equal(kept, plain)
    assert len({label for one in plain for label in one.labels.tolist()}) == 4  # -1, too


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    found, read = [], SampleCache.read

    def noted(self: SampleCache, shard: int, member: int, out: Any) -> Any:
        found.append((shard, member))
        return read(self, shard, member, out)

    monkeypatch.setattr(SampleCache, "read", noted)
    return found


def test_each_image_is_decoded_and_sent_once(
    small_shards: Callable[..., Any],
    decoded: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, gather = [], DeviceSamples.gather

    def noted(self: DeviceSamples, new: torch.Tensor, *more: Any) -> Any:
        sent.append(len(new))
        return gather(self, new, *more)

    monkeypatch.setattr(DeviceSamples, "gather", noted)
    take(small_shards(), 60, True, memory_gb=0.0)
    assert len(decoded) == len(set(decoded)) == sum(sent) == 100
    assert sum(sent[:14]) == 98
    assert not any(sent[15:])


class OperatorsOfThread(TorchDispatchMode):
    """Notes the operators in the `with` block of this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_gathering_has_no_operator_that_waits_for_a_device(
    small_shards: Callable[..., Any],
) -> None:
    config = Config(batch=7, data=DataOptions(mirror=True))
    source = open_shard_dataset(small_shards().manifest, 0)
    with (
        Loader(source, config, placement=Placement(CPU, True)) as loader,
        OperatorsOfThread() as seen,
    ):
        for _ in range(30):
            next(loader)
    assert {"index_copy_", "index_select", "where"} <= seen.names
    waiting = {"_local_scalar_dense", "nonzero", "masked_select", "index", "index_put_"}
    assert not seen.names & waiting


def test_replaced_samples_are_the_same(small_shards: Callable[..., Any]) -> None:
    shards = small_shards(labels=LABELS)
    tar = bytearray(shards.tars[1])
    tar[700] ^= 1
    shards.path(1).write_bytes(tar)
    options = {"skip_corrupt": True, "mirror": True}
    plain, said = take(shards, 45, False, **options)
    kept, said_too = take(shards, 45, True, **options)
    assert_equal(kept, plain)
    assert len(said) == 1
    assert said_too == said


def test_a_closed_loader_has_returned_the_memory(small_shards: Callable[..., Any]) -> None:
    source = open_shard_dataset(small_shards().manifest, 0)
    with Loader(source, Config(batch=5), placement=Placement(CPU, True)) as loader:
        next(loader)
        assert loader.on_device is not None
    assert loader.on_device is None


def test_a_run_trains_the_same_and_resumes_with_images_elsewhere(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shards, runs = small_shards(), tmp_path / "runs"
    options = ("--data.mirror", "true", "--record.checkpoint_kimg", "0.1")
    assert in_process(runs / "plain", shards, *options) == 0
    assert "on the cpu device" not in capsys.readouterr().out
    half = (*options, "--total-kimg", "0.208")
    assert in_process(runs / "kept", shards, *half, "--data.device_gb", "1") == 0
    assert "and 76.8 kB for all decoded images on the cpu device of" in capsys.readouterr().out
    assert in_process(runs / "kept", shards, *half[:-2], "--data.device_gb", "0") == 0
    assert "on the cpu device" not in capsys.readouterr().out
    assert in_process(runs / "whole", shards, *options, "--data.device_gb", "1") == 0
    _, plain = read_run(runs / "plain")
    for name in ("kept", "whole"):
        _, found = read_run(runs / name)
        assert all(torch.equal(found[key], value) for key, value in plain.items()), name


def test_auto_keeps_images_on_a_gpu_with_room() -> None:
    auto, giga = DataOptions(), 1 << 30
    where = [
        device_image_bytes(auto, size * giga, device, 20 * giga, available)
        for size, device, available in (
            (50, CUDA, 80 * giga), (53, CUDA, 80 * giga), (1, CUDA, None), (1, CPU, 80 * giga),
            (1, torch.device("mps"), 80 * giga),
        )
    ]  # fmt: skip
    assert where == [50 * giga, 0, 0, 0, 0]
    two, none = DataOptions(device_gb=2.0), DataOptions(device_gb=0.0)
    assert [device_image_bytes(two, n * giga, CPU, giga, None) for n in (2, 3)] == [2 * giga, 0]
    assert device_image_bytes(none, 1, CUDA, 0, 80 * giga) == 0


def test_images_beyond_the_limit_stay_in_main_memory(small_shards: Callable[..., Any]) -> None:
    source = open_shard_dataset(small_shards().manifest, 0)
    options = DataOptions(device_gb=1e-6)
    place, kept, note = place_samples(source, options, CPU, SINGLE_PROCESS, 0, None)
    assert not place.on_device
    assert kept == KeptImages(76_800)
    assert note.startswith("data.device_gb: all images take 76.8 kB, more than 1e-06 GB; they are")


def test_a_device_without_that_memory_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^data\.device_gb: cpu has no .*--data\.device_gb 0$"):
        DeviceSamples(2, (1 << 28, 1 << 28, 3), CPU)


def test_too_much_on_the_device_is_refused_before_the_run(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.preparation.available_bytes", lambda _: 1 << 20)
    assert in_process(tmp_path / "runs" / "run", small_shards(), "--data.device_gb", "1") == 2
    assert capsys.readouterr().err.rstrip().endswith(", or --data.device_gb 0")


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "all", "true", "[1]", ""])
def test_other_sizes_are_refused_in_one_line(
    value: str, small_shards: Callable[..., Any], tmp_path: Path, in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert in_process(tmp_path / "run", small_shards(), "--data.device_gb", value) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "data.device_gb: neither auto nor a number of at least 0" in said

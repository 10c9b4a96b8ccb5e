"""Batches: every sample once an epoch from any place, the same order wherever they come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from training.config import Config, DataOptions
from training.data import Batch, Loader
from training.image_shape import ImageShape
from training.machine.distributed import Distributed
from training.streaming.dataset import open_shard_dataset
from training.streaming.shards import DamagedShard

PIXELS = 16 * 16 * 3


def config(tmp_path: Path, batch: int = 10, **data: Any) -> Config:
    return Config(batch=batch, seed=5, data=DataOptions(cache=str(tmp_path / "cache"), **data))


def take(location: str | Path, options: Config, count: int, seen: int = 0, **more: Any) -> Any:
    source = open_shard_dataset(location, options.resolution)
    with Loader(source, options, seen, **more) as loader:
        return list(itertools.islice(loader, count))


def numbers(batches: list[Batch]) -> list[int]:
    """Which pictures the batches hold; the generator of the tests wrote it into them."""
    images = torch.cat([batch.images for batch in batches]).int()
    return (images[:, 0, 0, 0] * 256 + images[:, 0, 0, 1]).tolist()


@pytest.mark.parametrize("memory", [1.0, 30 * PIXELS / 2**30, 0.0])
def test_each_epoch_holds_every_sample_once(
    tmp_path: Path, small_shards: Callable[..., Any], memory: float
) -> None:
    shards = small_shards()
    got = numbers(take(shards.manifest, config(tmp_path, memory_gb=memory), 20))
    first, second = got[:100], got[100:]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    whole = numbers(take(shards.manifest, config(tmp_path, memory_gb=1.0), 20))
    assert got == whole  # the budget changes only the speed


def test_order_is_a_function_of_seed_and_images_seen(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    manifest = small_shards().manifest
    options = config(tmp_path, batch=7)
    whole = numbers(take(manifest, options, 40))
    for seen in (7, 98, 105, 203):
        assert numbers(take(manifest, options, 4, seen)) == whole[seen : seen + 28]
    assert numbers(take(manifest, config(tmp_path, batch=14), 20)) == whole  # batch alike
    other = Config(batch=7, seed=6)
    assert numbers(take(manifest, other, 40)) != whole


def test_ranks_share_each_batch(tmp_path: Path, small_shards: Callable[..., Any]) -> None:
    manifest = small_shards(sizes=(41, 3, 29)).manifest
    options = config(tmp_path, batch=9)
    whole = take(manifest, options, 12)
    parts = [take(manifest, options, 12, ranks=Distributed(rank, 2, rank, 2)) for rank in range(2)]
    for number, batch in enumerate(whole):
        together = torch.cat([part[number].images for part in parts])
        assert torch.equal(batch.images, together)


@pytest.mark.parametrize("kind", ["folder", "index", "file", "http", "http index", "absolute"])
def test_the_same_batches_from_anywhere(
    tmp_path: Path, small_shards: Callable[..., Any], serve: Callable[..., Any], kind: str
) -> None:
    shards = small_shards(labels=("cone", "cowrie", "whelk"))
    server = serve(shards.root)
    web = f"{server.url}/manifests/small"
    location = {
        "folder": str(shards.manifest),
        "index": str(shards.manifest / "shards.json"),
        "file": shards.manifest.as_uri(),
        "http": web,
        "http index": f"{web}/shards.json",
        "absolute": str(shards.manifest),
    }[kind]
    if kind == "absolute":
        shards.write_index(f"{server.url}/data/small/shards/")
    got = take(location, config(tmp_path), 10)
    images = torch.cat([batch.images for batch in got])
    assert images.shape == (100, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert torch.cat([batch.labels for batch in got]).tolist() == [n % 3 for n in numbers(got)]
    if kind == "folder":
        by_number = dict(zip(numbers(got), images.permute(0, 2, 3, 1).numpy(), strict=True))
        for number, seen in by_number.items():
            expected = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            assert np.array_equal(seen[1:], expected[1:])
    reference = take(shards.manifest, config(tmp_path), 10)
    assert numbers(got) == numbers(reference)


def test_mirrored_samples_are_mirrored_and_follow_from_the_position(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    manifest = small_shards().manifest
    plain = torch.cat([b.images for b in take(manifest, config(tmp_path), 20)])
    turned = torch.cat([b.images for b in take(manifest, config(tmp_path, mirror=True), 20)])
    same = [torch.equal(a, b) for a, b in zip(plain, turned, strict=True)]
    back = [torch.equal(a, b.flip(-1)) for a, b in zip(plain, turned, strict=True)]
    assert all(a != b for a, b in zip(same, back, strict=True))
    assert 60 < sum(back) < 140
    later = take(manifest, config(tmp_path, mirror=True), 3, 50)
    assert torch.equal(torch.cat([b.images for b in later]), turned[50:80])


def test_gray_and_smaller_images(tmp_path: Path, small_shards: Callable[..., Any]) -> None:
    shards = small_shards(channels=1)
    (batch,) = take(shards.manifest, Config(batch=4, resolution=8), 1)
    assert batch.images.shape == (4, 1, 8, 8)
    with pytest.raises(UserError, match="resolution: 32 px wanted"):
        take(shards.manifest, Config(resolution=32), 1)


def flipped(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flipped, "its sha256 is not the index's"),
        (lambda data: data[:-512], "bytes, the index says"),
        (None, "No such file"),
    ],
)
def test_a_damaged_local_shard_is_named_by_the_next_batch(
    tmp_path: Path, small_shards: Callable[..., Any], change: Any, said: str
) -> None:
    shards = small_shards()
    if change is None:
        shards.path(1).unlink()
    else:
        shards.path(1).write_bytes(change(shards.tars[1]))
    with pytest.raises(UserError, match=said) as caught:
        take(shards.manifest, config(tmp_path), 10)
    assert shards.path(1).name in str(caught.value)


def test_a_torn_tar_is_refused_though_its_hash_fits(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards()
    torn = shards.tars[0][: 512 * 6]  # cut at a member's end: no end-of-archive block
    shards.tars[0] = torn
    shards.path(0).write_bytes(torn)
    shards.write_index("../../data/small/shards/")
    with pytest.raises(DamagedShard, match=r"small-000000.tar: no end-of-archive block"):
        take(shards.manifest, config(tmp_path), 10)


def test_a_shard_with_other_counts_is_refused(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards()
    index = shards.manifest / "shards.json"
    index.write_text(index.read_text().replace('"nsamples": 40', '"nsamples": 41'))
    with pytest.raises(DamagedShard, match="40 samples, the index says 41"):
        take(shards.manifest, config(tmp_path), 11)


def test_skipping_a_damaged_shard_needs_leave_and_loses_no_position(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards()
    good = numbers(take(shards.manifest, config(tmp_path), 20))
    shards.path(1).write_bytes(flipped(shards.tars[1]))
    source = open_shard_dataset(shards.manifest, 0)
    options = config(tmp_path, skip_corrupt=True)
    with Loader(source, options) as loader:
        got = numbers(list(itertools.islice(loader, 20)))
        assert shards.path(1).name in loader.warnings.get_nowait()
        assert loader.warnings.empty()  # said once
    bad = set(range(40, 73))
    assert not bad & set(got)
    assert all(g == n for g, n in zip(got, good, strict=True) if n not in bad)
    assert numbers(take(shards.manifest, options, 5, 50)) == got[50:100]


def test_the_last_damaged_shard_is_named_if_none_is_left(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards()
    for number, tar in enumerate(shards.tars):
        shards.path(number).write_bytes(flipped(tar))
    with pytest.raises(UserError, match=r"are damaged; the last one: .*\.tar: its sha256"):
        take(shards.manifest, config(tmp_path, skip_corrupt=True), 1)


def test_an_exception_of_any_kind_reaches_the_trainer(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: object) -> int:
                if name in ("stop", "close", "ahead"):
                    return 0
                raise ZeroDivisionError("in the thread")

            return fail

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        take(small_shards().manifest, config(tmp_path), 1, opener=Broken())


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "missing"), ("[", "not a shard index"), (None, "no shard index there")],
)
def test_a_bad_index_is_named(
    tmp_path: Path, small_shards: Callable[..., Any], text: str | None, said: str
) -> None:
    index = small_shards().manifest / "shards.json"
    index.unlink() if text is None else index.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        open_shard_dataset(index.parent, 0)
    assert str(index) in str(caught.value)


@pytest.mark.parametrize("shape", [ImageShape(8, 9, 3), ImageShape(8, 8, 1)], ids=str)
def test_images_of_another_shape_than_a_network_are_refused(
    small_shards: Callable[..., Any], shape: ImageShape
) -> None:
    shards = small_shards()
    with pytest.raises(UserError, match="width or channels differ") as caught:
        open_shard_dataset(shards.manifest, 8, shape=shape)
    assert str(shards.manifest) in str(caught.value)
    assert open_shard_dataset(shards.manifest, 8, shape=ImageShape(8, 8, 3)).width == 8


def test_only_known_schemes_are_fetched(tmp_path: Path, small_shards: Callable[..., Any]) -> None:
    shards = small_shards()
    for base in ("pipe:cat /", "simplecache::http://127.0.0.1/", "data://x/"):
        shards.write_index(base)
        with pytest.raises(UserError, match="not a scheme for shards"):
            take(shards.manifest, config(tmp_path), 1)

"""Processes on a machine share decoded images: each is decoded once, in memory without a name."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.ranks import run_ranks
from training.config import Config, DataOptions
from training.data import Loader
from training.machine.distributed import init_distributed
from training.machine.shared_memory import SharedBlock, share_memory
from training.streaming.dataset import open_shard_dataset
from training.streaming.device_samples import Placement
from training.streaming.sample_memory import open_shared_memory
from training.streaming.samples import SampleCache
from training.streaming.shards import ShardPool

CPU = torch.device("cpu")
SAMPLES, BATCH, BATCHES = 100, 4, 80
SIZE = 1_234_567
"""Bytes of a block; no other file has this size."""


def count_calls(owner: type, name: str) -> list[int]:
    calls, real = [0], getattr(owner, name)

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return real(*args)

    setattr(owner, name, counted)
    return calls


def load_on_rank(manifest: str, out: str, how: str) -> None:
    """Load three epochs in step with the others; write batches and counts."""
    decodes, opens = count_calls(SampleCache, "read"), count_calls(ShardPool, "_opened")
    options = DataOptions(mirror=True, labelled=40)
    config = Config(batch=BATCH, data=options)
    with init_distributed(CPU) as ranks:
        if how == "refused" and ranks.is_main:

            def refused(*_: object) -> int:
                raise OSError(errno.ENOSYS, "Function not implemented")

            os.memfd_create = refused
        source = open_shard_dataset(manifest, 0, options)
        memory, reason = open_shared_memory(source, options, ranks)
        place, found, late = Placement(CPU, how == "device", memory), [], 0
        with Loader(source, config, ranks=ranks, placement=place) as loader:
            for number in range(BATCHES):
                batch = next(loader)
                found.append((batch.images, batch.labels))
                ranks.all_reduce_max(0)
                if number == SAMPLES // BATCH + 5:
                    late = opens[0]
        values = {
            "images": torch.stack([images for images, _ in found]),
            "labels": torch.stack([labels for _, labels in found]),
            "decodes": decodes[0], "opens": opens[0] - late, "reason": reason,
        }  # fmt: skip
        torch.save(values, f"{out}/{ranks.world_size}-{ranks.rank}.pt")
        ranks.all_reduce_max(0)  # the file is there as long as someone needs it


@pytest.mark.parametrize(
    ("world", "how"), [(2, "shared"), (4, "shared"), (4, "device"), (2, "refused")]
)
def test_processes_decode_each_image_once_and_get_the_same_batches(
    world: int, how: str, tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards(labels=("a", "b", "c"))
    config = Config(batch=BATCH, data=DataOptions(mirror=True, labelled=40))
    with Loader(open_shard_dataset(shards.manifest, 0, config.data), config) as loader:
        expected = [next(loader) for _ in range(BATCHES)]
    run_ranks(load_on_rank, world, tmp_path, str(shards.manifest), str(tmp_path), how)
    found = [torch.load(tmp_path / f"{world}-{rank}.pt") for rank in range(world)]
    images, labels = (
        torch.cat([values[name] for values in found], dim=1) for name in ("images", "labels")
    )
    assert torch.equal(images, torch.stack([batch.images for batch in expected]))
    assert torch.equal(labels, torch.stack([batch.labels for batch in expected]))
    decodes = sum(values["decodes"] for values in found)
    if how == "refused":
        assert all(values["reason"] == "Function not implemented" for values in found)
        assert decodes > 1.5 * SAMPLES
        return
    assert all(values["reason"] == "" for values in found)
    # a process reads ahead at most five batches, and so may reach the next epoch before another
    assert SAMPLES <= decodes <= SAMPLES + 5 * BATCH
    assert all(values["opens"] == 0 for values in found)


def killed_rank(where: str) -> None:
    with init_distributed(CPU) as ranks:
        block = share_memory(SIZE, ranks)
        assert isinstance(block, SharedBlock)
        with block.lock(write=True):
            block.memory[block.start + ranks.rank] = ranks.rank + 1
        ranks.all_reduce_max(0)
        with block.lock():
            found = list(block.memory[block.start : block.start + 5])
        (Path(where) / f"found-{ranks.rank}").write_text(repr((found, named_blocks())))
        ranks.all_reduce_max(0)
        if ranks.is_main:
            fcntl_lock = block.lock(write=True)
            fcntl_lock.__enter__()  # it dies with the lock
        os.kill(os.getpid(), signal.SIGKILL)


def named_blocks() -> list[str]:
    """Files in memory that hold a block."""
    return [
        entry.name
        for entry in os.scandir("/dev/shm")
        if entry.is_file() and entry.stat().st_size >= SIZE
    ]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_killed_processes_leave_nothing_in_memory(tmp_path: Path) -> None:
    before = named_blocks()
    run_ranks(killed_rank, 4, tmp_path, str(tmp_path), status=-signal.SIGKILL)
    found = [(tmp_path / f"found-{rank}").read_text() for rank in range(4)]
    assert found == [repr(([1, 2, 3, 4, 0], before))] * 4
    assert named_blocks() == before

"""Memory for decoded samples: of one process, or shared by all processes on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.config import DataOptions
from training.machine.distributed import Distributed
from training.machine.shared_memory import SharedBlock, share_memory
from training.streaming.decode import Pixels

if TYPE_CHECKING:
    from training.streaming.dataset import ShardDataset

GIGABYTE = 1 << 30


class SampleMemory:
    """The first `count` samples of a dataset by number: images uint8 (count, *shape) and labels
    int64 (count,), of which those that a process has put there can be read.

    Args:
        shape: height, width, channels.
        block: memory of several processes, of `needed_bytes`. A sample is marked after its bytes
            are written, under the lock of the block, and its mark is read under the lock before
            they are read; each process remembers the marks that it has seen.
    """

    def __init__(
        self, count: int, shape: tuple[int, int, int], block: SharedBlock | None = None
    ) -> None:
        self.count, self._block = count, block
        self._have = np.zeros(count, dtype=np.bool_)
        self.images: Pixels = np.empty((0, *shape), dtype=np.uint8)
        if block is None:
            self.images = np.empty((count, *shape), dtype=np.uint8)
            self.labels = np.zeros(count, dtype=np.int64)
            return
        start = block.start
        self.labels, start = _view(block, start, (count,), np.int64)
        self.images, start = _view(block, start, (count, *shape), np.uint8)
        self._marks, _ = _view(block, start, (count,), np.uint8)

    @staticmethod
    def needed_bytes(count: int, shape: tuple[int, int, int]) -> int:
        """Return the size of a block for `count` samples."""
        return count * (8 + int(np.prod(shape)) + 1)

    def missing(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the samples with these numbers cannot be read."""
        missing = numbers >= self.count
        missing[~missing] = ~self._have[numbers[~missing]]
        if self._block is not None and missing.any():
            asked = numbers[missing & (numbers < self.count)]
            if len(asked):
                with self._block.lock():
                    self._have[asked] = self._marks[asked]
                missing[numbers < self.count] = ~self._have[numbers[numbers < self.count]]
        return missing

    def put(self, number: int, image: Pixels, label: int) -> None:
        """Keep a sample, if there is a place for it."""
        if number >= self.count:
            return
        self.images[number], self.labels[number] = image, label
        if self._block is not None:
            with self._block.lock(write=True):
                self._marks[number] = 1
        self._have[number] = True

    def close(self) -> None:
        """Release the lock of shared memory; afterwards it is not used."""
        if self._block is not None:
            self._block.close()


def _view(block: SharedBlock, start: int, shape: tuple[int, ...], kind: Any) -> tuple[Any, int]:
    """Return an array in a block, and where it ends."""
    found: NDArray[Any] = np.ndarray(shape, dtype=kind, buffer=block.memory, offset=start)
    return found, start + found.nbytes


def kept_count(source: ShardDataset, memory_bytes: float) -> int:
    """Return how many decoded samples fit into this memory."""
    size = source.height * source.width * source.channels
    return int(min(source.index.nsamples, memory_bytes // size))


def open_private_memory(
    source: ShardDataset, options: DataOptions, ranks: Distributed
) -> SampleMemory:
    """Return memory of this process; those on a machine share the limit."""
    count = kept_count(source, options.memory_gb * GIGABYTE / ranks.local_world_size)
    return SampleMemory(count, (source.height, source.width, source.channels))


def open_shared_memory(
    source: ShardDataset, options: DataOptions, ranks: Distributed
) -> tuple[SampleMemory | None, str]:
    """Return memory of all processes on this machine, or None and why there is none. All processes
    of the run call this."""
    shape = (source.height, source.width, source.channels)
    count = kept_count(source, options.memory_gb * GIGABYTE)
    if ranks.world_size == 1 or not count:
        return None, ""
    block = share_memory(SampleMemory.needed_bytes(count, shape), ranks)
    if isinstance(block, str):
        return None, block
    return SampleMemory(count, shape, block), ""

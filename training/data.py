"""Batches of samples from shards, in an order fixed by (seed, images seen).

One thread reads ahead. Decoded images are kept as uint8 on the device or in main memory as far as
they fit; order and pixels are the same wherever they are, so the place changes only the speed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from training.config import Config
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.machine.transfer import BatchBuffer, BatchBuffers, Transfer
from training.streaming.dataset import ShardDataset
from training.streaming.decode import Pixels
from training.streaming.device_samples import (
    LABEL,
    MIRROR,
    NEW,
    NUMBER,
    DeviceSamples,
    Placement,
)
from training.streaming.epoch_reader import EpochReader
from training.streaming.openers import default_opener
from training.streaming.order import label_mask, rank_slice
from training.streaming.sample_memory import open_private_memory
from training.streaming.samples import Labels, SampleCache
from training.streaming.shards import ShardOpener

_POLL = 0.5
_PATIENCE = 3.0
_READ_AHEAD = 3
"""Maximum number of batches that wait."""


@dataclass(frozen=True)
class Batch:
    """`images` uint8 (n, channels, height, width), memory in NHWC; of two sets, an image of the
    second one follows that of the first in the channels (n, 2·channels, …). `labels` int64 (n,), 0
    where the set has none, -1 where this image has none. Both are on the loader's device."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class _ReadBatch:
    """A batch in main memory, of which the first `images` images go to the device."""

    buffer: BatchBuffer
    images: int


def requires_labels(config: Config) -> bool:
    """Return True if a network of `config` is conditioned on labels, so each image must have
    one."""
    discriminator = config.discriminator
    return not config.method.learns_labels and (
        config.generator.condition != "none"
        or discriminator.condition != "none"
        or discriminator.classifier
    )


class Loader:
    """The batches of a run, from `seen` images on, without end.

    Args:
        source: the shards.
        config: seed, batch and the data table.
        seen: images that earlier batches have taken.
        ranks: this process among how many; each gets its part of every batch.
        placement: where batches go to, and where decoded samples are kept.
        advice: the end of the message about a damaged shard.

    An exception of the reading thread is raised by the `next` that would have got its batch.
    `warnings` takes sentences that the user should read.
    """

    def __init__(
        self,
        source: ShardDataset,
        config: Config,
        seen: int = 0,
        ranks: Distributed = SINGLE_PROCESS,
        opener: ShardOpener | None = None,
        advice: str = "; --data.skip_corrupt true trains without it",
        placement: Placement | None = None,
    ) -> None:
        self._mirror, self._batch = config.data.mirror, config.batch
        self._part = rank_slice(config.batch, ranks.rank, ranks.world_size)
        placement = placement or Placement()
        shape = (source.height, source.width, source.channels)
        self.on_device: DeviceSamples | None = None
        if placement.on_device:
            self.on_device = DeviceSamples(source.index.nsamples, shape, placement.device)
        self._transfer, count = Transfer(placement.device), self._part.stop - self._part.start
        self._buffers = BatchBuffers(
            self._transfer,
            _READ_AHEAD + 2,  # those that wait, one that is filled, one that is copied from
            (count, *shape),
            (4 if self.on_device else 1, count),
        )
        memory = placement.memory
        if memory is None and not placement.on_device:
            memory = open_private_memory(source, config.data, ranks)
        opener = opener or default_opener(source, config.data, ranks)
        hidden = config.data.labelled
        shown = label_mask(config.seed, source.index.nsamples, hidden) if hidden else None
        self._opener = opener
        self._samples = SampleCache(source, memory, opener, shown, requires_labels(config))
        self._reader = EpochReader(
            self._samples, opener, config.data, config.seed, advice, self._needs_shard
        )
        self._total, self.warnings = self._reader.total, self._reader.warnings
        self._ready: queue.Queue[_ReadBatch | BaseException] = queue.Queue(maxsize=_READ_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._read_ahead, args=(seen,), name="loader", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while True:
            try:
                item = self._ready.get(timeout=_POLL)
                break
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("the loader's thread has ended") from None
        if isinstance(item, BaseException):
            raise item
        return self._send(item)

    def _send(self, read: _ReadBatch) -> Batch:
        """Return a batch on the device."""
        buffer, send = read.buffer, self._transfer.send
        if self.on_device is None:
            images, integers = send(buffer.images), send(buffer.integers)
            self._buffers.release(buffer)
            return Batch(images.permute(0, 3, 1, 2), integers[LABEL])
        images, integers = send(buffer.images[: read.images]), send(buffer.integers)
        self._buffers.release(buffer)
        found = self.on_device.gather(images, integers, self._mirror)
        return Batch(found, integers[LABEL])

    def close(self) -> None:
        """Stop reading ahead and close the shards; a server that hangs is not waited for."""
        self._stop.set()
        self._opener.stop()
        deadline = time.monotonic() + _PATIENCE
        while self._thread.is_alive() and time.monotonic() < deadline:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.02)
        if not self._thread.is_alive():
            self._samples.shards.close()
            self.on_device = None  # before another loader needs the device's memory

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_ahead(self, seen: int) -> None:
        try:
            self._transfer.enter_thread()
            while buffer := self._buffers.take(self._stop):
                self._put(_ReadBatch(buffer, self._read(seen, buffer)))
                seen += self._batch
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (raised again in the trainer's thread)
            self._put(error)

    def _put(self, item: _ReadBatch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
                return
            except queue.Full:
                continue

    def _needs_shard(self, shard: int) -> bool:
        missing = self._samples.missing_in(shard)
        return bool(len(missing)) and (
            self.on_device is None or not self.on_device.have[missing].all()
        )

    def _read(self, seen: int, buffer: BatchBuffer) -> int:
        """Fill the buffer with the batch after `seen` images; return how many images are in it."""
        first, last = seen + self._part.start, seen + self._part.stop
        images, integers = buffer.pixels, buffer.numbers
        row = new = 0
        while row < last - first:  # once; more often where a batch goes into the next epoch
            number, place = divmod(first + row, self._total)
            count = min(last - first - row, self._total - place)
            some = slice(row, row + count)
            if self.on_device is None:
                self._read_run(number, place, images[some], integers[LABEL, some])
                new += count
            else:
                free = images[new:], integers[NEW, new:]
                new += self._plan_run(self.on_device, number, place, integers[:NEW, some], *free)
            row += count
        return new

    def _read_run(self, number: int, place: int, images: Pixels, labels: Labels) -> None:
        """Samples of epoch `number` from `place` on."""
        epoch, there = self._reader.epoch(number), slice(place, place + len(images))
        numbers = self._samples.numbers(epoch.shard[there], epoch.member[there])
        missing = self._samples.copy_cached(numbers, images, labels)
        for row in np.flatnonzero(missing).tolist():
            _, labels[row] = self._reader.read_or_replace(number, place + row, images[row])
        if self._mirror:
            turned = torch.from_numpy(images).permute(0, 3, 1, 2)
            for row in np.flatnonzero(epoch.mirror[there]).tolist():
                turned[row] = turned[row].flip(-1)  # three times as fast as in NumPy

    def _plan_run(
        self, kept: DeviceSamples, number: int, place: int, rows: Labels, images: Pixels,
        new: Labels,
    ) -> int:  # fmt: skip
        """Plan the samples of epoch `number` from `place` on, one per column of `rows`; write those
        that the device does not have to the start of `images`, and their numbers to `new`.

        Returns:
            How many these are.
        """
        epoch, there = self._reader.epoch(number), slice(place, place + rows.shape[1])
        numbers = self._samples.numbers(epoch.shard[there], epoch.member[there])
        columns = np.flatnonzero(~kept.have[numbers])
        found, count = numbers[columns], len(columns)
        labels: Labels = np.zeros(count, dtype=np.int64)
        missing = self._samples.copy_cached(found, images[:count], labels)
        for row in np.flatnonzero(missing).tolist():
            at = place + int(columns[row])
            found[row], labels[row] = self._reader.read_or_replace(number, at, images[row])
        kept.labels[found], kept.have[found] = labels, True
        numbers[columns] = new[:count] = found
        rows[NUMBER], rows[LABEL], rows[MIRROR] = numbers, kept.labels[numbers], epoch.mirror[there]
        return count

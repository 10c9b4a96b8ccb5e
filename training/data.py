"""Batches of samples from shards, in an order fixed by (seed, images seen).

One thread reads ahead. Decoded images are kept in memory as uint8 while the budget allows; the
order is the same whether they are or not, so the budget changes only the speed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from pipeline.contract import UserError
from training.config import Config
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.streaming.dataset import ShardDataset, default_opener
from training.streaming.decode import Pixels
from training.streaming.order import Epoch, epoch_order, label_mask, rank_slice
from training.streaming.samples import Labels, SampleCache
from training.streaming.shards import DamagedSample, DamagedShard, ShardOpener

_GIGA = 1 << 30
_POLL = 0.5
_PATIENCE = 3.0
_MOST_WARNINGS = 100
"""Maximum number of damaged shards and samples that are reported."""


@dataclass(frozen=True)
class Batch:
    """`images` uint8 (n, channels, height, width), memory in NHWC; `labels` int64 (n,), 0 where
    the set has none, -1 where this image has none."""

    images: torch.Tensor
    labels: torch.Tensor


def requires_labels(config: Config) -> bool:
    """Return True if a network of `config` is conditioned on labels, so each image must have
    one."""
    discriminator = config.discriminator
    return (
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
    ) -> None:
        self._config, self._batch, self._advice = config, config.batch, advice
        self._part = rank_slice(config.batch, ranks.rank, ranks.world_size)
        budget = config.data.memory_gb * _GIGA / ranks.local_world_size
        opener = opener or default_opener(source, config.data, ranks)
        hidden = config.data.labelled
        shown = label_mask(config.seed, source.index.nsamples, hidden) if hidden else None
        self._opener = opener
        self._samples = SampleCache(source, budget, opener, shown, requires_labels(config))
        self._total = source.index.nsamples
        self._epochs: dict[int, Epoch] = {}
        self._reached = (-1, -1)
        self._damaged: set[int] = set()
        self._damaged_samples: set[tuple[int, int]] = set()
        self._open_since: dict[int, int] = {}  # shard → the epoch that it was opened in
        self.warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=3)
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
        return item

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

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_ahead(self, seen: int) -> None:
        try:
            while not self._stop.is_set():
                self._put(self._read(seen))
                seen += self._batch
        except BaseException as error:  # noqa: BLE001 (raised again in the trainer's thread)
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
                return
            except queue.Full:
                continue

    def _read(self, seen: int) -> Batch:
        first, last = seen + self._part.start, seen + self._part.stop
        images = np.empty((last - first, *self._samples.shape), dtype=np.uint8)
        labels: Labels = np.zeros(last - first, dtype=np.int64)
        row = 0
        while row < last - first:  # once; more often where a batch goes into the next epoch
            number, place = divmod(first + row, self._total)
            count = min(last - first - row, self._total - place)
            some = slice(row, row + count)
            self._read_run(number, place, images[some], labels[some])
            row += count
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))

    def _read_run(self, number: int, place: int, images: Pixels, labels: Labels) -> None:
        """Samples of epoch `number` from `place` on."""
        epoch, there = self._epoch(number), slice(place, place + len(images))
        missing = self._samples.copy_cached(epoch.shard[there], epoch.member[there], images, labels)
        for row in np.flatnonzero(missing).tolist():
            labels[row] = self._read_or_replace(number, place + row, images[row])
        if self._config.data.mirror:
            turned = torch.from_numpy(images).permute(0, 3, 1, 2)
            for row in np.flatnonzero(epoch.mirror[there]).tolist():
                turned[row] = turned[row].flip(-1)  # three times as fast as in NumPy

    def _read_or_replace(self, number: int, place: int, out: Pixels) -> int:
        """Return the sample at `place`; if it or its shard is damaged and may be skipped, the
        nearest one before it in the epoch (else after it) that is not. So the position stays one
        number."""
        epoch, last = self._epoch(number), ""
        for other in chain(range(place, -1, -1), range(place + 1, self._total)):
            shard, member = int(epoch.shard[other]), int(epoch.member[other])
            if shard in self._damaged or (shard, member) in self._damaged_samples:
                continue
            if shard not in self._open_since:
                self._release_finished_shards(number, place)
                self._prefetch(number, shard)
                self._open_since[shard] = number
            try:
                return self._samples.read(shard, member, out)
            except DamagedShard as error:
                if not self._config.data.skip_corrupt:
                    raise DamagedShard(f"{error}{self._advice}") from None
                if isinstance(error, DamagedSample):
                    self._damaged_samples.add((shard, member))
                else:
                    self._damaged.add(shard)
                if len(self._damaged) + len(self._damaged_samples) <= _MOST_WARNINGS:
                    self.warnings.put(f"{error}; skipped, other samples take its place")
                last = f"; the last one: {error}"
        raise UserError(f"all shards are damaged{last}")

    def _release_finished_shards(self, number: int, place: int) -> None:
        """Close the shards that no sample from `place` on needs (until the next epoch)."""
        last_use = self._epoch(number).last_use
        for shard, since in list(self._open_since.items()):
            if since < number or last_use[shard] < place:
                self._samples.shards.release(shard)
                del self._open_since[shard]

    def _prefetch(self, number: int, shard: int) -> None:
        """When the epoch comes to a new shard, fetch the one after it."""
        epoch = self._epoch(number)
        here = (number, int(epoch.turn[shard]))
        if here <= self._reached:
            return
        self._reached = here
        turn = here[1] + 1
        if turn == len(epoch.shards):
            epoch, turn = self._epoch(number + 1), 0
        following = int(epoch.shards[turn])
        if following not in self._damaged and self._samples.needs_decoding(following):
            self._opener.prefetch(following)

    def _epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            config = self._config
            order = epoch_order(config.seed, number, self._samples.sizes, config.data.window)
            near = {key: epoch for key, epoch in self._epochs.items() if key == number - 1}
            self._epochs = near | {number: order}
        return self._epochs[number]

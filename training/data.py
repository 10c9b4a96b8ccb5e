"""Batches of samples from shards, in an order fixed by (seed, images seen).

One thread reads ahead. Decoded images are kept in memory as uint8 while the budget allows; the
order is the same whether they are or not, so the budget changes only the speed.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ShardIndex, UserError, load_index, local_path
from training.config import Config, DataOptions
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.networks import ImageShape
from training.streaming.cache import ShardCache
from training.streaming.decode import FORMATS, Pixels, decode_into
from training.streaming.order import Epoch, epoch_order, label_mask, rank_slice
from training.streaming.shards import (
    DamagedShard,
    LocalShards,
    Shard,
    ShardOpener,
    ShardPool,
)

Labels = NDArray[np.int64]

_GIGA = 1 << 30
_SAID_BYTES = 16 << 20
"""Of an image file at most: its profile, EXIF and XMP."""
_LABEL_BYTES = 64
_MANY = 10_000_000
_BYTES_PER_SAMPLE = 1024
"""The least that a sample takes in a tar: a header and a block of its image."""
_POLL = 0.5
_PATIENCE = 3.0


@dataclass(frozen=True)
class Batch:
    """`images` uint8 (n, channels, height, width), memory in NHWC; `labels` int64 (n,), 0 where
    the set has none, -1 where this image has none."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class ShardDataset:
    """A set of shards and the size in which its images are read."""

    index: ShardIndex
    locations: list[str]
    height: int
    width: int

    @property
    def channels(self) -> int:
        return self.index.channels

    @property
    def classes(self) -> int:
        return len(self.index.labels)

    @property
    def image_shape(self) -> ImageShape:
        return ImageShape(self.height, self.width, self.channels, self.classes)


def open_shard_dataset(location: str | Path, resolution: int) -> ShardDataset:
    """Open the shards at `location` with images `resolution` px high (0: as stored).

    Raises:
        UserError: there is no index, no sample, or the images are smaller than `resolution`.
    """
    index, locations = load_index(location)
    height, width = index.resolution
    if not index.nsamples:
        raise UserError(f"{location}: the shards hold no samples")
    if resolution:
        if resolution > height or width * resolution % height:
            raise UserError(
                f"resolution: {resolution} px wanted, but the shards at {location} are "
                f"{width}×{height} px; build shards of that size, or ask for a smaller one"
            )
        height, width = resolution, width * resolution // height
    if index.nsamples > _MANY:
        _refuse_invented(index, locations)
    return ShardDataset(index, locations, height, width)


def _refuse_invented(index: ShardIndex, locations: list[str]) -> None:
    """Refuse an index with more samples than its files can hold: their order would take gigabytes.
    Smaller numbers are checked when a shard is opened.

    Raises:
        UserError: a file does not exist, or is smaller than the index says.
    """
    for entry, location in zip(index.shardlist, locations, strict=True):
        path = local_path(location)
        if entry.nsamples * _BYTES_PER_SAMPLE > entry.bytes:
            raise UserError(f"{location}: {entry.nsamples} samples are not in {entry.bytes} bytes")
        try:
            if path is not None and path.stat().st_size < entry.bytes:
                raise UserError(f"{path}: smaller than the {entry.bytes} bytes that the index says")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None


def default_opener(
    source: ShardDataset, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> ShardOpener:
    """How the source's shards are opened: in place where they are files, else through a cache.

    The processes on a machine have a cache each and share its bound.

    Raises:
        UserError: the bound is too small, or the cache is in use.
    """
    paths = [local_path(location) for location in source.locations]
    local = [path for path in paths if path is not None]
    if len(local) == len(paths):
        return LocalShards(local)
    folder = (
        Path(options.cache) if options.cache else DatasetPaths(source.index.name).data_dir / "cache"
    )
    if ranks.local_world_size > 1:
        folder = folder / f"rank{ranks.local_rank}"
    limit = int(options.cache_gb * 1e9 / ranks.local_world_size)
    entries = source.index.shardlist
    return ShardCache(folder, entries, source.locations, limit, options.window, options.timeout)


class SampleCache:
    """Decoded samples by (shard, member), kept in memory within a budget.

    Args:
        shown: the samples that show their label (None: all).
        need_labels: whether a sample without a label is an error.
    """

    def __init__(
        self,
        source: ShardDataset,
        memory_bytes: float,
        opener: ShardOpener,
        shown: NDArray[np.bool_] | None = None,
        need_labels: bool = False,
    ) -> None:
        self.source, self._shown, self._need_labels = source, shown, need_labels
        entries = source.index.shardlist
        self.sizes = [entry.nsamples for entry in entries]
        self.shards = ShardPool(entries, source.locations, opener)
        self.shape = (source.height, source.width, source.channels)
        # encoded images are smaller than their pixels but for what is said of them
        self._most = _SAID_BYTES + 4 * math.prod(source.index.resolution) * source.channels
        self._starts = np.cumsum([0, *self.sizes])
        kept = int(min(self._starts[-1], memory_bytes // int(np.prod(self.shape))))
        self._kept: Pixels = np.empty((kept, *self.shape), dtype=np.uint8)
        self._labels = np.zeros(kept, dtype=np.int64)
        self._have = np.zeros(kept, dtype=np.bool_)

    def copy_cached(
        self, shards: NDArray[np.int32], members: NDArray[np.int32], out: Pixels, labels: Labels
    ) -> NDArray[np.bool_]:
        """Write the cached samples to the rows of `out` and `labels`; return which were not
        cached."""
        numbers = self._starts[shards] + members
        missing = numbers >= len(self._kept)
        missing[~missing] = ~self._have[numbers[~missing]]
        if not missing.any():
            np.take(self._kept, numbers, axis=0, out=out)
            np.take(self._labels, numbers, out=labels)
            return missing
        rows = np.flatnonzero(~missing)
        out[rows], labels[rows] = self._kept[numbers[rows]], self._labels[numbers[rows]]
        return missing

    def read(self, shard: int, member: int, out: Pixels) -> int:
        """Decode the sample into `out` (height, width, channels), cache it if it fits, and return
        its label."""
        label = self._decode(self.shards.get(shard), shard, member, out)
        number = int(self._starts[shard]) + member
        if number < len(self._kept):
            self._kept[number], self._labels[number], self._have[number] = out, label, True
        return label

    def needs_decoding(self, shard: int) -> bool:
        """Return True if samples of the shard would have to be decoded."""
        start, end = int(self._starts[shard]), int(self._starts[shard + 1])
        return end > len(self._kept) or not self._have[start:end].all()

    def _decode(self, shard: Shard, number: int, member: int, out: Pixels) -> int:
        sample, where = shard.samples[member], self.source.locations[number]
        for ending in FORMATS:  # a generator would cost as much as reading the bytes
            if ending in sample.members:
                break
        else:
            raise DamagedShard(f"{where}: {sample.key} has no image")
        try:
            data = shard.read(member, ending, self._most)
            assert data is not None
            decode_into(out, data, ending, self.source.index.resolution)
        except ValueError as error:
            raise DamagedShard(f"{where}: {sample.key}.{ending} {error}") from None
        if not self.source.classes:
            return 0
        if self._shown is not None and not self._shown[self._starts[number] + member]:
            return -1
        try:
            label = self._label(shard.read(member, "cls", _LABEL_BYTES))
        except ValueError as error:
            raise DamagedShard(f"{where}: {sample.key}.cls {error}") from None
        if label is not None:
            return label
        if self._need_labels:
            raise UserError(
                f"{where}: {sample.key} has no label ({sample.key}.cls), and the networks are "
                "conditioned on labels"
            )
        return -1

    def _label(self, text: bytes | None) -> int | None:
        """Return the class number of a label, None if there is none.

        Raises:
            ValueError: it is not a class number.
        """
        text = (text or b"").strip()
        if not text:
            return None
        if not text.isdigit():
            raise ValueError(f"is {text!r}, not the number of a label")
        if (label := int(text)) >= self.source.classes:
            raise ValueError(f"is {label}, the index names fewer labels")
        return label


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
    ) -> None:
        self._config, self._batch = config, config.batch
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
        """The sample at `place`; where its shard is damaged and may be skipped, the nearest one
        before it in the epoch (else after it) that is not. So the position stays one number."""
        epoch = self._epoch(number)
        for other in chain(range(place, -1, -1), range(place + 1, self._total)):
            shard = int(epoch.shard[other])
            if shard in self._damaged:
                continue
            if shard not in self._open_since:
                self._release_finished_shards(number, place)
                self._prefetch(number, shard)
                self._open_since[shard] = number
            try:
                return self._samples.read(shard, int(epoch.member[other]), out)
            except DamagedShard as error:
                if not self._config.data.skip_corrupt:
                    raise DamagedShard(
                        f"{error}; --data.skip_corrupt true trains without it"
                    ) from None
                self._damaged.add(shard)
                self.warnings.put(f"{error}; skipped, other samples take its place")
        raise UserError("all shards are damaged")

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

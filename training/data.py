"""Batches of samples from shards, in an order fixed by (seed, images seen).

One thread reads ahead. Decoded images are kept in memory as uint8 while the budget allows; the
order is the same whether they are or not, so the budget changes only the speed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contract import ShardIndex, UserError, load_index
from training.config import Config
from training.decode import ENDINGS, Pixels, decode
from training.order import Epoch, epoch_order, rank_slice
from training.shards import DamagedShard, LocalFiles, Opener, OpenShards, Shard

_GIGA = 1 << 30
_POLL = 0.5


@dataclass(frozen=True)
class Batch:
    """`images` uint8 (n, channels, height, width), memory in NHWC; `labels` int64 (n,), 0 where
    the set has none."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Source:
    """A set of shards and the form in which its images are wanted."""

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


def open_source(location: str | Path, resolution: int) -> Source:
    """The shards at `location`, images `resolution` px high (0: as they are stored).

    Raises:
        UserError: no index, no samples, or images smaller than asked for.
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
    return Source(index, locations, height, width)


def default_opener(source: Source) -> Opener:
    """How the source's shards are opened: in place where they are files."""
    paths = []
    for location in source.locations:
        parts = urlsplit(location)
        if len(parts.scheme) > 1 and parts.scheme != "file":
            raise UserError(f"{location}: only local shards are supported")
        paths.append(Path(parts.path if parts.scheme == "file" else location))
    return LocalFiles(paths)


class Samples:
    """Decoded samples by (shard, member), kept in memory within a budget."""

    def __init__(self, source: Source, memory_bytes: float, opener: Opener) -> None:
        self.source = source
        entries = source.index.shardlist
        self.sizes = [entry.nsamples for entry in entries]
        self.shards = OpenShards(entries, source.locations, opener)
        self.shape = (source.height, source.width, source.channels)
        self._starts = np.cumsum([0, *self.sizes])
        kept = int(min(self._starts[-1], memory_bytes // int(np.prod(self.shape))))
        self._kept: Pixels = np.empty((kept, *self.shape), dtype=np.uint8)
        self._labels = np.zeros(kept, dtype=np.int64)
        self._have = np.zeros(kept, dtype=np.bool_)

    def read(self, shard: int, member: int, out: Pixels) -> int:
        """Write the sample's pixels to `out` (height, width, channels); its label."""
        number = int(self._starts[shard]) + member
        kept = number < len(self._kept)
        if kept and self._have[number]:
            out[...] = self._kept[number]
            return int(self._labels[number])
        label = self._decode(self.shards.get(shard), shard, member, out)
        if kept:
            self._kept[number], self._labels[number], self._have[number] = out, label, True
        return label

    def _decode(self, shard: Shard, number: int, member: int, out: Pixels) -> int:
        sample, where = shard.samples[member], self.source.locations[number]
        ending = next((ending for ending in ENDINGS if ending in sample.members), None)
        if ending is None:
            raise DamagedShard(f"{where}: {sample.key} has no image")
        data = shard.read(member, ending)
        assert data is not None
        try:
            out[...] = decode(data, ending, *self.shape)
        except ValueError as error:
            raise UserError(f"{where}: {sample.key}.{ending} {error}") from None
        text = shard.read(member, "cls")
        label = int(text) if text and text.strip().isdigit() else 0
        if label and label >= self.source.classes:
            raise UserError(f"{where}: {sample.key}.cls is {label}, the index names fewer labels")
        return label


class Loader:
    """The batches of a run, from `seen` images on, without end.

    Args:
        source: the shards.
        config: seed, batch and the data table.
        seen: images that earlier batches have taken.
        rank, world: this process and how many there are; each gets its part of every batch.

    An exception of the reading thread is raised by the `next` that would have got its batch.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        seen: int = 0,
        rank: int = 0,
        world: int = 1,
        opener: Opener | None = None,
    ) -> None:
        self._config, self._batch = config, config.batch
        self._part = rank_slice(config.batch, rank, world)
        budget = config.data.memory_gb * _GIGA
        self._samples = Samples(source, budget, opener or default_opener(source))
        self._total = source.index.nsamples
        self._epochs: dict[int, Epoch] = {}
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
        """Stop reading ahead and close the shards."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)
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
        labels: NDArray[np.int64] = np.zeros(last - first, dtype=np.int64)
        for row, position in enumerate(range(first, last)):
            labels[row] = self._read_one(position, images[row])
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))

    def _read_one(self, position: int, out: Pixels) -> int:
        number, place = divmod(position, self._total)
        epoch = self._epoch(number)
        shard, member = int(epoch.shard[place]), int(epoch.member[place])
        label = self._samples.read(shard, member, out)
        if self._config.data.mirror and epoch.mirror[place]:
            out[...] = out[:, ::-1].copy()
        if place >= epoch.last_use[shard]:
            self._samples.shards.release(shard)
        return label

    def _epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            config = self._config
            order = epoch_order(config.seed, number, self._samples.sizes, config.data.window)
            self._epochs = {number: order}
        return self._epochs[number]

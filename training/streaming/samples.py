"""Decoded samples with their labels, kept in memory as far as they fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import UserError, local_path
from training.config import DataOptions
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.streaming.decode import (
    FORMATS,
    OtherSizeError,
    Pixels,
    decode_any,
    decode_fitted,
    decode_into,
)
from training.streaming.foreign import ScannedShard
from training.streaming.openers import default_opener
from training.streaming.sample_memory import SampleMemory
from training.streaming.shards import (
    DamagedSample,
    DamagedShard,
    Shard,
    ShardOpener,
    ShardPool,
)
from training.streaming.tar_scan import MAX_IMAGE_BYTES, pick_image

if TYPE_CHECKING:
    from training.streaming.dataset import ShardDataset

Labels = NDArray[np.int64]

_METADATA_BYTES = 16 << 20
"""Maximum size of an image file's metadata: its profile, EXIF and XMP."""
_LABEL_BYTES = 64
_BATCH = 32
"""Number of images that `iter_image_batches` reads at a time."""
_RESIZE = "; resize images with --data.fit crop, pad or stretch"


class SampleCache:
    """Decoded samples by (shard, member), kept in memory as far as they fit.

    Args:
        memory: where they are kept (None: nowhere).
        shown: the samples that show their label (None: all).
        need_labels: whether a sample without a label is an error.
    """

    def __init__(
        self,
        source: ShardDataset,
        memory: SampleMemory | None,
        opener: ShardOpener,
        shown: NDArray[np.bool_] | None = None,
        need_labels: bool = False,
    ) -> None:
        self.source, self._shown, self._need_labels = source, shown, need_labels
        entries = source.index.shardlist
        self.sizes = [entry.nsamples for entry in entries]
        first = entries[0] if entries else None
        self._image = first.image if isinstance(first, ScannedShard) else ""
        self.shards = ShardPool(entries, source.locations, opener)
        self.shape = (source.height, source.width, source.channels)
        self._memory = SampleMemory(0, self.shape) if memory is None else memory
        # encoded images are smaller than their pixels, apart from metadata
        self._most = _METADATA_BYTES + 4 * math.prod(source.index.resolution) * source.channels
        if source.labels is not None:
            self._most = MAX_IMAGE_BYTES
        self._starts: NDArray[np.int64] = np.cumsum([0, *self.sizes])

    def numbers(self, shards: NDArray[np.int32], members: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the numbers of samples in the dataset."""
        found: NDArray[np.int64] = self._starts[shards] + members
        return found

    def copy_cached(
        self, numbers: NDArray[np.int64], out: Pixels, labels: Labels
    ) -> NDArray[np.bool_]:
        """Write the cached samples with these numbers to the rows of `out` and `labels`; return
        which were not cached."""
        memory = self._memory
        missing = memory.missing(numbers)
        if not missing.any():
            np.take(memory.images, numbers, axis=0, out=out)
            np.take(memory.labels, numbers, out=labels)
            return missing
        rows = np.flatnonzero(~missing)
        out[rows], labels[rows] = memory.images[numbers[rows]], memory.labels[numbers[rows]]
        return missing

    def read(self, shard: int, member: int, out: Pixels) -> tuple[int, int]:
        """Decode the sample into `out` (height, width, channels), cache it if it fits, and return
        its number and label."""
        label = self._decode(self.shards.get(shard), shard, member, out)
        if self.source.clusters is not None:
            image = torch.from_numpy(out).permute(2, 0, 1)
            label = int(self.source.clusters.nearest(image[None])[0])
        number = int(self._starts[shard]) + member
        self._memory.put(number, out, label)
        return number, label

    def missing_in(self, shard: int) -> NDArray[np.int64]:
        """Return the numbers of the samples of a shard that would have to be decoded."""
        numbers = np.arange(self._starts[shard], self._starts[shard + 1])
        return numbers[self._memory.missing(numbers)]

    def _decode(self, shard: Shard, number: int, member: int, out: Pixels) -> int:
        if self.source.labels is not None:
            return self._decode_foreign(shard, number, member, out)
        sample, where = shard.samples[member], self.source.locations[number]
        for extension in FORMATS:  # a generator would cost as much as reading the bytes
            if extension in sample.members:
                break
        else:
            raise DamagedShard(f"{where}: {sample.key} has no image")
        try:
            data = shard.read(member, extension, self._most)
            assert data is not None
            if self.source.fit:
                decode_fitted(out, data, extension, self.source.fit)
            else:
                decode_into(out, data, extension, self.source.index.resolution)
        except ValueError as error:
            raise DamagedShard(f"{where}: {sample.key}.{extension} {error}") from None
        if not self.source.reads_labels:
            return 0
        if self._shown is not None and not self._shown[self._starts[number] + member]:
            return -1
        try:
            label = self._label(shard.read(member, "cls", _LABEL_BYTES))
        except ValueError as error:
            raise DamagedShard(f"{where}: {sample.key}.cls {error}") from None
        return self._known(label, where, sample.key)

    def _decode_foreign(self, shard: Shard, number: int, member: int, out: Pixels) -> int:
        """Decode a sample of another tool, whose label is known."""
        source, sample, where = self.source, shard.samples[member], self.source.locations[number]
        extension = pick_image(sample.members, self._image)
        assert extension is not None
        assert source.labels is not None
        try:
            data = shard.read(member, extension, self._most)
            assert data is not None
            if source.fit:
                decode_fitted(out, data, extension, source.fit)
            else:
                decode_any(out, data, extension, source.index.resolution)
        except ValueError as error:
            advice = _RESIZE if isinstance(error, OtherSizeError) else ""
            raise DamagedSample(f"{where}: {sample.key}.{extension} {error}{advice}") from None
        if not source.reads_labels:
            return 0
        place = self._starts[number] + member
        if self._shown is not None and not self._shown[place]:
            return -1
        label = int(source.labels[place])
        return self._known(label if label >= 0 else None, where, sample.key)

    def _known(self, label: int | None, where: str, key: str) -> int:
        """Return a label, -1 if there is none.

        Raises:
            UserError: there is none, but each sample must have one.
        """
        if label is None and self._need_labels:
            member = f" ({key}.cls)" if self.source.labels is None else ""
            raise UserError(
                f"{where}: {key} has no label{member}, and the networks are conditioned on labels; "
                "remove such samples, or give --data.label none"
            )
        return -1 if label is None else label

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


def first_images(
    source: ShardDataset,
    count: int,
    options: DataOptions,
    reduce: Callable[[Tensor], Tensor] = lambda images: images,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Read the dataset's first `count` images uint8 (n, channels, h, w), or what `reduce` makes of
    each batch of them, and their labels (n,), -1 without one. Fetched shards are cached separately
    from the training's cache, which each process has for itself.

    Raises:
        UserError: no image can be read.
    """
    count = min(count, source.index.nsamples)
    with TemporaryDirectory(prefix="shellgan-") as folder:
        batches = iter_image_batches(source, count, replace(options, cache=folder))
        found = [(reduce(images), labels) for images, labels in batches]
    if not found:
        raise no_readable_image(source)
    images, labels = zip(*found, strict=True)
    return torch.cat(images), np.concatenate(labels)


def no_readable_image(source: ShardDataset) -> UserError:
    return UserError(f"{source.index.name}: no image can be read; the shards are damaged")


def iter_image_batches(
    source: ShardDataset, count: int, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """Yield the dataset's first `count` images in order, uint8 (n, channels, h, w), and their
    labels int64 (n,).

    Raises:
        DamagedShard: unless `options` allow to skip damaged shards.
    """
    for images, labels, _ in iter_placed_batches(source, count, options, ranks):
        yield images, labels


def iter_placed_batches(
    source: ShardDataset, count: int, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> Iterator[tuple[Tensor, NDArray[np.int64], list[tuple[int, int]]]]:
    """As `iter_image_batches`, with the places (shard, member) of the images."""
    samples = SampleCache(source, None, default_opener(source, options, ranks))
    shape = (source.height, source.width, source.channels)
    pixels, labels = np.empty((_BATCH, *shape), np.uint8), np.zeros(_BATCH, np.int64)
    before, places = 0, list[tuple[int, int]]()
    try:
        for shard, member in _places(source, count):
            if shard != before:
                samples.shards.release(before)
                before = shard
            try:
                row = len(places)
                _, labels[row] = samples.read(shard, member, pixels[row])
            except DamagedShard:
                if not options.skip_corrupt:
                    raise
                continue
            places.append((shard, member))
            if len(places) == _BATCH:
                yield torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2), labels.copy(), places
                places = []
        if row := len(places):
            yield torch.from_numpy(pixels[:row]).permute(0, 3, 1, 2), labels[:row].copy(), places
    finally:
        samples.shards.close()


def _places(source: ShardDataset, count: int) -> Iterator[tuple[int, int]]:
    """Yield (shard, member) of `count` samples: the first ones, which are a fair sample because
    shards are shuffled. Local shards of other tools may be sorted, so their samples are spread over
    all shards."""
    if source.labels is not None and all(local_path(one) is not None for one in source.locations):
        starts = np.cumsum([0, *(entry.nsamples for entry in source.index.shardlist)])
        numbers = np.arange(count) * source.index.nsamples // max(1, count)
        shards = np.searchsorted(starts, numbers, side="right") - 1
        yield from zip(shards.tolist(), (numbers - starts[shards]).tolist(), strict=True)
        return
    for shard, entry in enumerate(source.index.shardlist):
        for member in range(min(entry.nsamples, count)):
            yield shard, member
        count -= entry.nsamples

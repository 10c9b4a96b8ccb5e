"""Features of a dataset's images, cached on disk: computing them takes most of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import DatasetPaths, UserError, atomic_file, is_disk_full, local_path
from training.config import DataOptions
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.metrics.distances import Features
from training.metrics.feature_networks import BATCH, FeatureNetwork
from training.streaming.dataset import ShardDataset, default_opener
from training.streaming.samples import SampleCache
from training.streaming.shards import DamagedShard

Progress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """Do nothing: a progress callback."""


@dataclass(frozen=True)
class RealFeatures:
    """Features (n, d) and labels int64 (n,) of n images of a dataset (`_places`)."""

    features: Features
    labels: NDArray[np.int64]


def cache_path(source: ShardDataset, network: FeatureNetwork, count: int) -> Path:
    """Return the file of the features of a dataset's first `count` images:
    `data/NAME/features/…`, with the dataset's digest, the image size and the network in its
    name."""
    size = f"{source.width}x{source.height}"
    fitted = f"-{source.fit}" if source.fit else ""
    name = f"{network.identity}-{source.index.digest[:16]}-{size}{fitted}-{count}.npz"
    return DatasetPaths(source.index.name).data_dir / "features" / name


def real_features(
    source: ShardDataset,
    network: FeatureNetwork,
    most: int,
    options: DataOptions | None = None,
    ranks: Distributed = SINGLE_PROCESS,
    progress: Progress = no_progress,
) -> RealFeatures:
    """Return features of the dataset's first `most` images (0: all), from the cache if possible.

    `options` state how shards are fetched, and whether damaged ones may be skipped.

    Raises:
        UserError: a shard cannot be fetched.
    """
    options = options or DataOptions()
    count = min(most or source.index.nsamples, source.index.nsamples)
    path = cache_path(source, network, count)
    known = _read(path)
    if known is not None:
        return known
    rows, labels = [], []
    for images, which in iter_image_batches(source, count, options, ranks):
        rows.append(network.features(images))
        labels.append(which)
        progress(sum(map(len, labels)), count)
    if not rows:
        raise UserError(f"{source.index.name}: no image can be read")
    real = RealFeatures(np.concatenate(rows), np.concatenate(labels))
    # otherwise damaged shards were skipped, and may be complete next time
    if len(real.labels) == count:
        _write(path, real)
    return real


def iter_image_batches(
    source: ShardDataset, count: int, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """Yield the dataset's first `count` images in order, uint8 (n, channels, h, w), and their
    labels int64 (n,).

    Raises:
        DamagedShard: unless `options` allow to skip damaged shards.
    """
    samples = SampleCache(source, None, default_opener(source, options, ranks))
    shape = (source.height, source.width, source.channels)
    pixels, labels = np.empty((BATCH, *shape), np.uint8), np.zeros(BATCH, np.int64)
    row = before = 0
    try:
        for shard, member in _places(source, count):
            if shard != before:
                samples.shards.release(before)
                before = shard
            try:
                _, labels[row] = samples.read(shard, member, pixels[row])
            except DamagedShard:
                if not options.skip_corrupt:
                    raise
                continue
            row += 1
            if row == BATCH:
                yield torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2), labels.copy()
                row = 0
        if row:
            yield torch.from_numpy(pixels[:row]).permute(0, 3, 1, 2), labels[:row].copy()
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


def _read(path: Path) -> RealFeatures | None:
    """Read cached features; None if the file does not exist or is damaged."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            features, labels = file["features"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return RealFeatures(features, labels) if len(features) == len(labels) else None


def _write(path: Path, real: RealFeatures) -> None:
    """Write features to the cache; if the disk is full, they are computed again next time."""
    try:
        with atomic_file(path) as file:
            np.savez(file, features=real.features, labels=real.labels)
    except OSError as error:
        if not is_disk_full(error):
            raise

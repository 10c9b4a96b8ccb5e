"""Features of a data set's images, kept on disk: computing them takes most of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import DatasetPaths, UserError, atomic_file, is_disk_full
from training.config import DataOptions
from training.data import SampleCache, ShardDataset, default_opener
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.metrics.distances import Features
from training.metrics.feature_networks import BATCH, FeatureNetwork
from training.streaming.shards import DamagedShard

Progress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """For those who do not look."""


@dataclass(frozen=True)
class RealFeatures:
    """Features (n, d) and labels int64 (n,) of the first n images of a set. Shards are shuffled, so
    these are a fair sample."""

    features: Features
    labels: NDArray[np.int64]


def cache_path(source: ShardDataset, network: FeatureNetwork, count: int) -> Path:
    """Where the features of a set's first `count` images are: `data/NAME/features/…`, with the
    set's digest, the images' size and the network in the name."""
    size = f"{source.width}x{source.height}"
    name = f"{network.identity}-{source.index.digest[:16]}-{size}-{count}.npz"
    return DatasetPaths(source.index.name).data_dir / "features" / name


def real_features(
    source: ShardDataset,
    network: FeatureNetwork,
    most: int,
    options: DataOptions | None = None,
    ranks: Distributed = SINGLE_PROCESS,
    progress: Progress = no_progress,
) -> RealFeatures:
    """Features of the set's first `most` images (0: of all), from the disk where they are known.

    `table` says how shards are fetched, and whether damaged ones may be skipped.

    Raises:
        UserError: a shard cannot be had.
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
    if len(real.labels) == count:  # else damaged shards were skipped: next time they may be whole
        _write(path, real)
    return real


def iter_image_batches(
    source: ShardDataset, count: int, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """The set's first `count` images in the order of their numbers, uint8 (n, channels, h, w), and
    their labels int64 (n,). The images' memory is used again for the next.

    Raises:
        DamagedShard: and `table` does not say that such are to be left out.
    """
    samples = SampleCache(source, 0, default_opener(source, options, ranks))
    shape = (source.height, source.width, source.channels)
    pixels, labels = np.empty((BATCH, *shape), np.uint8), np.zeros(BATCH, np.int64)
    row = 0
    try:
        for shard, member in _places(source, count):
            try:
                labels[row] = samples.read(shard, member, pixels[row])
            except DamagedShard:
                if not options.skip_corrupt:
                    raise
                continue
            row += 1
            if row == BATCH:
                yield torch.from_numpy(pixels).permute(0, 3, 1, 2), labels.copy()
                row = 0
            if member == source.index.shardlist[shard].nsamples - 1:
                samples.shards.release(shard)
        if row:
            yield torch.from_numpy(pixels[:row]).permute(0, 3, 1, 2), labels[:row].copy()
    finally:
        samples.shards.close()


def _places(source: ShardDataset, count: int) -> Iterator[tuple[int, int]]:
    """(shard, member) of the first `count` samples."""
    for shard, entry in enumerate(source.index.shardlist):
        for member in range(min(entry.nsamples, count)):
            yield shard, member
        count -= entry.nsamples


def _read(path: Path) -> RealFeatures | None:
    """What the file holds, None where there is none or it is not whole."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            features, labels = file["features"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return RealFeatures(features, labels) if len(features) == len(labels) else None


def _write(path: Path, real: RealFeatures) -> None:
    """Keep the features; a full disk only means that they are computed again."""
    try:
        with atomic_file(path) as file:
            np.savez(file, features=real.features, labels=real.labels)
    except OSError as error:
        if not is_disk_full(error):
            raise

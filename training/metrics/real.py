"""Features of a dataset's images, cached on disk: computing them takes most of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, UserError, atomic_file, is_disk_full
from training.config import DataOptions
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.metrics.distances import Features
from training.metrics.feature_networks import FeatureNetwork
from training.streaming.dataset import ShardDataset
from training.streaming.samples import iter_image_batches

Progress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """Do nothing: a progress callback."""


@dataclass(frozen=True)
class RealFeatures:
    """Features (n, d) and labels int64 (n,) of n images of a dataset (`iter_image_batches`)."""

    features: Features
    labels: NDArray[np.int64]


def cache_path(source: ShardDataset, network: FeatureNetwork, count: int) -> Path:
    """Return the file of the features of a dataset's first `count` images:
    `data/NAME/features/…`, with the dataset's digest, the images' width, height and channels, and
    the network in its name."""
    size = f"{source.width}x{source.height}x{source.channels}"
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

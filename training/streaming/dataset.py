"""A set of shards, opened by its index: what it holds, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ShardIndex, UserError, count_of, local_path
from training.config import Config, DataOptions
from training.image_shape import ImageShape
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.streaming.cache import ShardCache
from training.streaming.foreign import ForeignShards, find_shards, index_tars
from training.streaming.shards import LocalShards, ShardOpener
from training.streaming.tar_scan import SampleOptions

_MANY = 10_000_000
_BYTES_PER_SAMPLE = 1024
"""The least that a sample takes in a tar: a header and a block of its image."""


@dataclass(frozen=True)
class ShardDataset:
    """A set of shards and the shape in which its images are read.

    `fit` is how images of other sizes are resized, see `DataOptions`. `labels` is None for shards
    with a complete index; otherwise the class number of each sample in order, -1 if it has none.
    `notes` are sentences for the user. `second` is the second set of a method that translates
    between two sets, with images of the same shape.
    """

    index: ShardIndex
    locations: list[str]
    height: int
    width: int
    channels: int
    fit: str = ""
    labels: NDArray[np.int32] | None = None
    notes: tuple[str, ...] = ()
    second: ShardDataset | None = None

    @property
    def sets(self) -> list[ShardDataset]:
        """The set itself, and the second one if there is one."""
        return [self] if self.second is None else [self, self.second]

    @property
    def classes(self) -> int:
        return len(self.index.labels)

    @property
    def image_shape(self) -> ImageShape:
        return ImageShape(self.height, self.width, self.channels, self.classes)


def open_shard_dataset(
    location: str | Path,
    resolution: int,
    options: DataOptions | None = None,
    shape: ImageShape | None = None,
) -> ShardDataset:
    """Open the shards at `location` with images `resolution` px high (0: as stored).

    Args:
        location: an index, a tar, a folder, a glob, braces, or a list of these, as paths or URLs.
        shape: of the images of a trained network: shards of other tools are read in this shape, and
            cropped if their sizes differ.

    Raises:
        UserError: there are no shards or no samples, or the images cannot be read in that size.
    """
    options = options or DataOptions()
    found = find_shards(str(location), complete=not (options.label or options.image))
    if isinstance(found, list):
        how = SampleOptions(options.image, options.label)
        foreign = index_tars(found, how, options.skip_corrupt, options.timeout)
        return _fit_foreign(foreign, location, resolution, options, shape)
    index, locations = found
    height, width = index.resolution
    if not index.nsamples:
        raise UserError(f"{location}: the shards hold no samples")
    if resolution and options.fit:
        height, width = resolution, shape.width if shape else resolution
    elif resolution:
        height, width = _reduced(height, width, resolution, location)
    if index.nsamples > _MANY:
        _refuse_invented(index, locations)
    channels = options.channels or index.channels
    return ShardDataset(index, locations, height, width, channels, options.fit)


def open_training_sets(location: str | Path, config: Config) -> ShardDataset:
    """Open the shards that a run of `config` learns from: those at `location`, and the second set
    if its method has one.

    Raises:
        UserError: as in `open_shard_dataset`, or the second set is missing, or its images have
            another shape.
    """
    options = config.data
    if config.method.sets == 1:
        return open_shard_dataset(location, config.resolution, options)
    if not options.shards_b:
        raise UserError(
            f'data.shards_b: method.name "{config.method.name}" translates between two sets of '
            "images; give the second one with --shards-b"
        )
    first = open_shard_dataset(location, config.resolution, options)
    if first.channels == 4:
        raise UserError(
            f"{location}: images with transparency, which {config.method.name} does not translate; "
            "--data.channels 3 reads them over white"
        )
    alike = replace(options, channels=first.channels)  # type: ignore[arg-type]
    try:
        second = open_shard_dataset(options.shards_b, config.resolution, alike)
    except UserError as error:
        raise UserError(f"--shards-b: {error}") from None
    if (second.height, second.width) != (first.height, first.width):
        raise UserError(
            f"--shards-b {options.shards_b}: images of {second.width}×{second.height} px, those of "
            f"--shards of {first.width}×{first.height}; resize both with --data.fit crop, pad or "
            "stretch and --resolution N"
        )
    return replace(first, second=second, notes=(*first.notes, *second.notes))


def split_options(source: ShardDataset, options: DataOptions) -> list[DataOptions]:
    """Return the options of each of `source.sets`: limits of memory are shared in proportion to
    their sizes, that of the disk equally, in folders of their own, with `sample_options`."""
    if source.second is None:
        return [options]
    sizes = [one.index.nsamples for one in source.sets]
    parts = []
    for number, (one, size) in enumerate(zip(source.sets, sizes, strict=True)):
        share = size / sum(sizes)
        device = options.device_gb if options.device_gb == "auto" else options.device_gb * share
        apart = _with_cache(one, options, "ab"[number])
        parts.append(replace(apart, memory_gb=options.memory_gb * share, device_gb=device))
    return parts


def sample_options(source: ShardDataset, options: DataOptions) -> DataOptions:
    """Return the options with which samples and evaluations read one of two sets, also while the
    loader reads it."""
    return _with_cache(source, options, "samples")


def _with_cache(source: ShardDataset, options: DataOptions, name: str) -> DataOptions:
    folder = Path(options.cache) if options.cache else _cache_folder(source)
    return replace(options, cache_gb=options.cache_gb / 3, cache=str(folder / name))


def _cache_folder(source: ShardDataset) -> Path:
    return DatasetPaths(source.index.name).data_dir / "cache"


def _reduced(height: int, width: int, resolution: int, location: str | Path) -> tuple[int, int]:
    """Return the (height, width) of images reduced to `resolution` px high."""
    if resolution > height or width * resolution % height:
        raise UserError(
            f"resolution: {resolution} px wanted, but the shards at {location} are "
            f"{width}×{height} px; build shards of that size, ask for a smaller one, or resize "
            "with --data.fit crop, pad or stretch"
        )
    return resolution, width * resolution // height


def _fit_foreign(
    found: ForeignShards,
    location: str | Path,
    resolution: int,
    options: DataOptions,
    shape: ImageShape | None,
) -> ShardDataset:
    """Return shards of another tool with the size and channels in which their images are read."""
    (height, width), *others = found.sizes
    fit, notes = options.fit, list(found.notes)
    if others and shape is not None and not fit:
        fit = "crop"
        notes.append(f"{location}: images of several sizes; their central regions are used")
    if fit and (resolution or others):
        if not resolution:
            raise UserError(f"{location}: --data.fit {fit} needs a --resolution")
        height, width = resolution, shape.width if shape else resolution
    elif others:
        raise UserError(_several_sizes(found, location))
    elif resolution:
        height, width = _reduced(height, width, resolution, location)
    channels = shape.channels if shape else options.channels or found.index.channels
    if found.transparent and channels != 4 and not options.channels:
        notes.append(
            f"images with transparency, read over white (the first: {found.transparent}); "
            "--data.channels 4 keeps it"
        )
    return ShardDataset(
        found.index, found.locations, height, width, channels, fit, found.classes, tuple(notes)
    )


def _several_sizes(found: ForeignShards, location: str | Path) -> str:
    named = (f"{width}×{height} px: {place}" for (height, width), place in found.sizes.items())
    return (
        f"{location}: images of several sizes ({'; '.join(islice(named, 2))}); resize them with "
        "--data.fit crop, pad or stretch and --resolution N, or build shards once with "
        "`python -m pipeline import`"
    )


def _refuse_invented(index: ShardIndex, locations: list[str]) -> None:
    """Refuse an index with more samples than its files can hold: their order would take gigabytes.
    Smaller numbers are checked when a shard is opened.

    Raises:
        UserError: a file does not exist, or is smaller than the index says.
    """
    for entry, location in zip(index.shardlist, locations, strict=True):
        path = local_path(location)
        if entry.nsamples * _BYTES_PER_SAMPLE > entry.bytes:
            raise UserError(
                f"{location}: {count_of(entry.nsamples, 'sample')} cannot be in {entry.bytes} bytes"
            )
        try:
            if path is not None and path.stat().st_size < entry.bytes:
                raise UserError(f"{path}: smaller than the {entry.bytes} bytes that the index says")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None


def default_opener(
    source: ShardDataset, options: DataOptions, ranks: Distributed = SINGLE_PROCESS
) -> ShardOpener:
    """Return how the source's shards are opened: in place where they are files, else through a
    cache.

    The processes on a machine have a cache each and share its bound.

    Raises:
        UserError: the bound is too small, or the cache is in use.
    """
    paths = [local_path(location) for location in source.locations]
    local = [path for path in paths if path is not None]
    if len(local) == len(paths):
        return LocalShards(local)
    folder = Path(options.cache) if options.cache else _cache_folder(source)
    if ranks.local_world_size > 1:
        folder = folder / f"rank{ranks.local_rank}"
    limit = int(options.cache_gb * 1e9 / ranks.local_world_size)
    entries = source.index.shardlist
    return ShardCache(folder, entries, source.locations, limit, options.window, options.timeout)

"""A set of shards, opened by its index: what it holds, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.contract import DatasetPaths, ShardIndex, UserError, load_index, local_path
from training.config import DataOptions
from training.image_shape import ImageShape
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.streaming.cache import ShardCache
from training.streaming.shards import LocalShards, ShardOpener

_MANY = 10_000_000
_BYTES_PER_SAMPLE = 1024
"""The least that a sample takes in a tar: a header and a block of its image."""


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
    folder = (
        Path(options.cache) if options.cache else DatasetPaths(source.index.name).data_dir / "cache"
    )
    if ranks.local_world_size > 1:
        folder = folder / f"rank{ranks.local_rank}"
    limit = int(options.cache_gb * 1e9 / ranks.local_world_size)
    entries = source.index.shardlist
    return ShardCache(folder, entries, source.locations, limit, options.window, options.timeout)

"""How the shards of a set are opened: in place, or through a cache of limited size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract import DatasetPaths, local_path
from training.config import DataOptions
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.streaming.cache import ShardCache
from training.streaming.shards import LocalShards, ShardOpener

if TYPE_CHECKING:
    from training.streaming.dataset import ShardDataset


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

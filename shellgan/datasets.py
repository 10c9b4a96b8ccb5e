"""Shards as a PyTorch dataset whose position can be saved, and as a webdataset pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.contract import UserError, is_url, parse_config, project_root
from shellgan.arguments import MAX_SEED, check_count
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import ShardDataset, open_shard_dataset
from training.streaming.locations import join_locations, split_locations

Sample = tuple[torch.Tensor, int]
_AHEAD = 32
"""Samples that are read at a time."""


@dataclass(frozen=True)
class Statistics:
    """Numbers of a dataset: `bytes` of all shards, size of its images in pixels; `counts` of images
    found, selected and rejected, if its index has them; `digest` identifies the samples; `notes`
    are sentences for people."""

    samples: int
    shards: int
    bytes: int
    height: int
    width: int
    channels: int
    counts: Mapping[str, int]
    digest: str
    notes: tuple[str, ...]


class Dataset(IterableDataset[Sample]):
    """The samples of shards, in a random order that depends only on the seed.

    Iterating yields an epoch, or the rest of one: images uint8 (channels, height, width) with the
    number of their label (0 if the dataset has no labels, -1 if the image has none). The next
    iteration yields the next epoch, in another order. `location` is where the shards are, and
    `labels` are the names of the classes.
    """

    def __init__(self, source: ShardDataset, location: str, config: Config, root: Path) -> None:
        self.source, self.location, self.labels = source, location, source.index.labels
        self._config, self._root, self._seen = config, root, 0

    def __len__(self) -> int:
        return self.source.index.nsamples

    @property
    def name(self) -> str:
        """The dataset's name, as in its index."""
        return self.source.index.name

    @property
    def root(self) -> Path:
        """The project's folder with which it was opened."""
        return self._root

    def training_options(self) -> dict[str, str]:
        """Return how the dataset was opened, as keys of a training configuration."""
        data = self._config.data
        given = {
            "data.fit": data.fit, "data.label": data.label, "data.image": data.image,
            "data.channels": str(data.channels or ""),
            "data.mirror": "true" if data.mirror else "",
            "data.skip_corrupt": "true" if data.skip_corrupt else "",
            "resolution": str(self._config.resolution or ""),
        }  # fmt: skip
        return {key: value for key, value in given.items() if value}

    def reading_options(self, options: DataOptions) -> DataOptions:
        """Return the options of a run with those given when this dataset was opened."""
        data = self._config.data
        given: dict[str, Any] = {
            "fit": data.fit, "label": data.label, "image": data.image, "channels": data.channels,
            "skip_corrupt": data.skip_corrupt,
        }  # fmt: skip
        return replace(options, **{key: value for key, value in given.items() if value})

    @property
    def statistics(self) -> Statistics:
        """Its numbers, read from the index."""
        index, source = self.source.index, self.source
        return Statistics(
            index.nsamples, len(index.shardlist), sum(one.bytes for one in index.shardlist),
            source.height, source.width, source.channels, dict(index.counts), index.digest,
            source.notes,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Sample]:
        if get_worker_info() is not None:
            raise UserError(
                "num_workers: each worker would have a position of its own; use num_workers=0 "
                "(a thread reads ahead)"
            )
        end = (self._seen // len(self) + 1) * len(self)
        with project_root(self._root):
            loader = Loader(self.source, self._config, self._seen, advice="; use skip_corrupt=True")
        with loader:
            for batch in loader:
                for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
                    self._seen += 1
                    yield image, label
                    if self._seen == end:
                        return

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last sample that was yielded, as JSON values. It is exact
        in a `DataLoader` with `num_workers=0`."""
        return {"seen": self._seen, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position of the same dataset, opened with the same options.

        Raises:
            UserError: the state is of another dataset or other options.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise UserError(f"state_dict: {key} is {state.get(key)!r}, not {value!r}")
        self._seen = check_count("state_dict: seen", state.get("seen"), 0, MAX_SEED)

    def _identity(self) -> dict[str, Any]:
        data = self._config.data
        return {
            "digest": self.source.index.digest, "seed": self._config.seed, "mirror": data.mirror,
            "window": data.window,
        }  # fmt: skip

    def as_webdataset(self) -> Any:
        """Return a `webdataset.DataPipeline` over the same tars, in order: dictionaries of bytes by
        extension, as written. It shares the shards among the workers of a `DataLoader`."""
        from shellgan.tars import TarPipeline

        return TarPipeline(self.source.locations)


def absolute_location(where: str | Path, root: Path) -> str:
    """Return a location of shards with its relative paths below `root`."""
    found = split_locations(str(where))
    return join_locations([one if is_url(one) else str(root / one) for one in found])


def open_dataset(
    where: str | Path,
    *,
    root: str | Path | None = None,
    resolution: int = 0,
    fit: str = "",
    label: str = "",
    image: str = "",
    channels: int = 0,
    mirror: bool = False,
    seed: int = 0,
    memory_gb: float = 2.0,
    skip_corrupt: bool = False,
) -> Dataset:
    """Open shards: a manifest folder, an index, a tar, a folder of tars, a glob, braces such as
    `{000..099}.tar`, or a list of these separated by commas, as paths or URLs.

    Args:
        root: relative paths and caches are below this folder (None: the current folder).
        resolution: height of the images in pixels (0: as stored).
        fit: how images of other sizes are resized: `crop`, `pad` or `stretch`.
        label: what becomes the label in shards of other tools, such as a member's extension.
        image: which member is the image in shards of other tools.
        channels: 1 (gray), 3 (colour) or 4 (colour and transparency, premultiplied); 0: as stored,
            with transparency of shards of other tools over white.
        mirror: flip half of the images.
        seed: of the order of the samples.
        memory_gb: limit of the decoded images kept in memory.
        skip_corrupt: leave out damaged samples instead of raising.

    Raises:
        UserError: an option is invalid, there are no shards, or their images cannot be read in that
            size.
    """
    folder = Path(root).absolute() if root is not None else Path.cwd()
    data = {
        "mirror": mirror, "memory_gb": memory_gb, "skip_corrupt": skip_corrupt, "label": label,
        "image": image, "fit": fit, "channels": channels,
    }  # fmt: skip
    values = {"seed": seed, "batch": _AHEAD, "resolution": resolution, "data": data}
    config = parse_config(Config, values, "open_dataset")
    location = absolute_location(where, folder)
    with project_root(folder):
        source = open_shard_dataset(location, resolution, config.data)
    return Dataset(source, location, config, folder)

"""A set of shards, opened by its index: what it holds, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import ShardIndex, UserError, count_of, local_path
from training.config import Config, DataOptions, count_clusters
from training.image_shape import ImageShape
from training.streaming.clusters import (
    EXAMINED,
    Clusters,
    find_clusters,
    parse_clusters,
    reduce_images,
)
from training.streaming.foreign import ForeignShards, find_shards, index_tars
from training.streaming.samples import first_images
from training.streaming.tar_scan import SampleOptions

_MANY = 10_000_000
_BYTES_PER_SAMPLE = 1024
"""The least that a sample takes in a tar: a header and a block of its image."""


@dataclass(frozen=True)
class ShardDataset:
    """A set of shards and the shape in which its images are read.

    `fit` is how images of other sizes are resized, see `DataOptions`. `labels` is None for shards
    with a complete index; otherwise the class number of each sample in order, -1 if it has none.
    With `clusters`, a sample's label is the number of the nearest one instead. `notes` are
    sentences for the user. `second` is the second set of a method that translates between two sets,
    with images of the same shape.
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
    clusters: Clusters | None = None

    @property
    def sets(self) -> list[ShardDataset]:
        """The set itself, and the second one if there is one."""
        return [self] if self.second is None else [self, self.second]

    @property
    def classes(self) -> int:
        return len(self.index.labels)

    @property
    def reads_labels(self) -> bool:
        """True if samples have labels of their own, which are used."""
        return self.classes > 0 and self.clusters is None

    @property
    def image_shape(self) -> ImageShape:
        return ImageShape(self.height, self.width, self.channels, self.classes)


def open_shard_dataset(
    location: str | Path,
    resolution: int,
    options: DataOptions | None = None,
    shape: ImageShape | None = None,
    clusters: str = "",
) -> ShardDataset:
    """Open the shards at `location` with images `resolution` px high (0: as stored).

    Args:
        location: an index, a tar, a folder, a glob, braces, or a list of these, as paths or URLs.
        shape: of the images of a trained network, in which images are read: those of other tools
            are cropped if their sizes differ.
        clusters: the centres of a run whose labels are clusters (`Clusters.to_text`); otherwise
            those of the first images are found.

    Raises:
        UserError: there are no shards or no samples, or the images cannot be read in that size or
            shape.
    """
    options = options or DataOptions()
    count = count_clusters(options.label)
    own, label = (replace(options, label=""), "none") if count else (options, "")
    source = _open(location, resolution, own, shape, label)
    if shape and (source.width, source.channels) != (shape.width, shape.channels):
        raise UserError(f"{location}: width or channels differ from the trained network's images")
    return _with_clusters(source, options, count, clusters) if count else source


def _with_clusters(
    source: ShardDataset, options: DataOptions, count: int, known: str
) -> ShardDataset:
    """Return the set with clusters in place of its labels: the `known` ones, or else those of its
    first images.

    Raises:
        UserError: there are too few images, or none can be read.
    """
    index = replace(source.index, labels=())
    note = f"labels: the nearest of {count} clusters of similar images"
    if known:
        clusters = parse_clusters(known, count, source.channels)
    else:
        unlabelled = replace(source, index=index)
        images, _ = first_images(unlabelled, EXAMINED, options, reduce_images)
        clusters = find_clusters(images, count)
        sizes = np.bincount(clusters.nearest(images), minlength=count)
        note += f", each of {sizes.min():,} to {sizes.max():,} of the first {len(images):,}"
    # other labels are other features of real images, and other conditions
    digest = sha256(index.digest.encode() + clusters.centres.tobytes()).hexdigest()
    names = tuple(f"cluster-{number}" for number in range(1, count + 1))
    named = replace(index, labels=names, digest=digest)
    return replace(source, index=named, clusters=clusters, notes=(*source.notes, note))


def _open(
    location: str | Path,
    resolution: int,
    options: DataOptions,
    shape: ImageShape | None,
    label: str = "",
) -> ShardDataset:
    """As `open_shard_dataset`, but without clusters; `label` counts instead of that of `options`
    for shards of other tools."""
    found = find_shards(str(location), complete=not (options.label or options.image))
    if isinstance(found, list):
        how = SampleOptions(options.image, label or options.label)
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


def open_training_sets(location: str | Path, config: Config, clusters: str = "") -> ShardDataset:
    """Open the shards that a run of `config` learns from: those at `location`, and the second set
    if its method has one, which needs no labels. `clusters` as in `open_shard_dataset`.

    Raises:
        UserError: as in `open_shard_dataset`, or the second set is missing, or its images have
            another shape.
    """
    options = config.data
    if config.method.sets == 1:
        return open_shard_dataset(location, config.resolution, options, clusters=clusters)
    if count_clusters(options.label):
        options = replace(options, label="none")
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

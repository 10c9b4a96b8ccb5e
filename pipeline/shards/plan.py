"""Plans which images go into which shard, and checks whether an existing shard is up to date.

The order is a global shuffle by the sha256 of seed and key, so every shard is a random sample of
the dataset. The digest of a shard covers the options and all its inputs. Its sidecar
`NAME-000000.json` is written after the tar and records the digest that the tar was built with.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, UserError
from pipeline.forgotten import Forgotten, read_forgotten
from pipeline.options import ShardOptions
from pipeline.select.selection import SelectedImage

SAMPLE_VERSION = 3
"""Increase it when the same options produce other samples; all shards are then rebuilt."""

_NOT_IN_IMAGE_DIGEST = (
    "part", "member", "offset", "phash", "blur", "spread", "detail", "missing_part",
)  # fmt: skip
"""Fields of a selected image that do not affect its samples."""

_NOT_IN_OPTIONS_DIGEST = ("samples_per_shard", "seed", "keep_originals")
"""Options that do not affect the samples, only which shard they are in."""


@dataclass(frozen=True)
class ShardPlan:
    """A planned shard: the offsets of its images' lines in the selection, in order."""

    number: int
    name: str
    digest: str
    offsets: tuple[int, ...]

    def tar(self, dataset: DatasetPaths) -> Path:
        return dataset.shards_dir / f"{self.name}.tar"

    def sidecar(self, dataset: DatasetPaths) -> Path:
        return dataset.shards_dir / f"{self.name}.json"


@dataclass(frozen=True)
class ShardingPlan:
    """All planned shards. `classes` are the class names in the order of their numbers."""

    shards: tuple[ShardPlan, ...]
    classes: tuple[str, ...]

    @property
    def images(self) -> int:
        return sum(len(shard.offsets) for shard in self.shards)

    @property
    def digest(self) -> str:
        """The digest that identifies the samples of all shards together."""
        return _sha256([self.classes, *(shard.digest for shard in self.shards)]).hex()


def plan_shards(options: ShardOptions, source: DatasetPaths, name: str) -> ShardingPlan:
    """Shuffle the selection of `source` and divide it into the shards of dataset `name`.

    The result depends only on the selection, the forgotten images and the options.

    Raises:
        UserError: there is no selection, or an image in it has no label for its class.
    """
    if not source.selection.exists():
        raise UserError(f"{source.selection}: no selection; run select first")
    forgotten = read_forgotten(source)
    kept = _index_selection(source.selection, options, forgotten)
    with_options = options_digest(options, kept.classes)
    order = _shuffle(kept, forgotten, options.seed)
    size = options.samples_per_shard
    shards = []
    for number, start in enumerate(range(0, len(order), size)):
        images = order[start : start + size]
        images = images[images >= 0]
        if len(images):
            shards.append(
                ShardPlan(
                    number,
                    f"{name}-{number:06d}",
                    shard_digest(with_options, [kept.digest(i) for i in images]),
                    tuple(kept.offsets[i] for i in images),
                )
            )
    return ShardingPlan(tuple(shards), kept.classes)


def options_digest(options: ShardOptions, classes: tuple[str, ...]) -> bytes:
    """Return a digest (32 bytes) of all that determines the samples of an original."""
    values = {field: getattr(options, field) for field in options.__dataclass_fields__
              if field not in _NOT_IN_OPTIONS_DIGEST}  # fmt: skip
    return _sha256([SAMPLE_VERSION, values, classes])


def image_digest(line: dict[str, Any]) -> bytes:
    """Return a digest (32 bytes) of the fields of a selected image that affect its samples."""
    return _sha256({name: line[name] for name in sorted(line) if name not in _NOT_IN_IMAGE_DIGEST})


def shard_digest(with_options: bytes, images: list[bytes]) -> str:
    """Return the digest of a shard from those of its options and of its images, in order."""
    return hashlib.sha256(with_options + b"".join(images)).hexdigest()


def shuffle_key(seed: int, key: str) -> int:
    """Return the sort key of an image in the global shuffle (64 bits)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8])


def _sha256(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="replace")).digest()


@dataclass(frozen=True)
class _ShuffleIndex:
    """The keys, offsets and digests of the selection in flat arrays, in the order of the list."""

    keys: array[int]
    offsets: array[int]
    digests: bytearray
    classes: tuple[str, ...]

    def digest(self, index: int) -> bytes:
        return bytes(self.digests[32 * index : 32 * index + 32])


def _index_selection(path: Path, options: ShardOptions, forgotten: Forgotten) -> _ShuffleIndex:
    keys, offsets, digests = array("Q"), array("Q"), bytearray()
    position = options.class_label
    names: set[str] = set()
    if position is not None:
        names = {
            labels[position]
            for labels in forgotten.labels_by_key.values()
            if len(labels) > position
        }
    for offset, line in _selection_lines(path):
        keys.append(int(line["key"], 16))
        offsets.append(offset)
        digests += image_digest(line)
        if position is not None:
            names.add(class_name(line, position, path))
    return _ShuffleIndex(keys, offsets, digests, tuple(sorted(names)))


def class_name(line: dict[str, Any], position: int, path: Path) -> str:
    """Return the label of a selected image that is its class.

    Raises:
        UserError: it has no label at that position (the selection was made with other options).
    """
    if len(line["labels"]) <= position:
        raise UserError(f"{path}: {line['key']} has no label {position}; run select again")
    return str(line["labels"][position])


def _selection_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the offset and the values of each line of the selection."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                image = json.loads(line)
                int(image["key"], 16)
                list(image["labels"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{path}:{number}: not an image of a selection ({error}); run select again"
                ) from None
            yield offset, image
            offset += len(line)


def _shuffle(kept: _ShuffleIndex, forgotten: Forgotten, seed: int) -> NDArray[np.int64]:
    """Return the indices of the images in the selection in shuffled order; -1 for a forgotten
    image."""
    holes = np.array([int(key, 16) for key in sorted(forgotten.labels_by_key)], np.uint64)
    keys = np.concatenate([np.array(kept.keys, np.uint64), holes])
    ranks = np.fromiter((shuffle_key(seed, f"{key:016x}") for key in keys), np.uint64, len(keys))
    numbers = np.arange(len(keys))
    numbers[len(kept.keys) :] = -1
    return numbers[np.lexsort((keys, ranks))]


@dataclass(frozen=True)
class PlannedImages:
    """The images of a shard in order, their class numbers, and short digests by key; `options`
    identifies the options and the classes."""

    images: list[SelectedImage]
    classes: list[int | None]
    digests: dict[str, str]
    options: str


def planned_images(
    options: ShardOptions, source: DatasetPaths, classes: tuple[str, ...], plan: ShardPlan
) -> PlannedImages:
    """Read the images of a planned shard.

    Raises:
        UserError: the selection has changed since the plan.
    """
    lines = []
    with source.selection.open("rb") as file:
        for offset in plan.offsets:
            file.seek(offset)
            lines.append(file.readline())
    with_options = options_digest(options, classes)
    try:
        found = [json.loads(line) for line in lines]
        digests = [*map(image_digest, found)]
        digest = shard_digest(with_options, digests)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        digest = ""
    if digest != plan.digest:
        raise UserError(f"{source.selection}: changed since {plan.name} was planned; plan again")
    numbers = {name: number for number, name in enumerate(classes)}
    position = options.class_label
    try:
        images = [SelectedImage.from_json(line) for line in found]
    except ValueError as error:
        raise UserError(
            f"{source.selection}: not an image of a selection ({error}); run select again"
        ) from None
    return PlannedImages(
        images,
        [
            None if position is None else numbers[class_name(line, position, source.selection)]
            for line in found
        ],
        {line["key"]: one.hex()[:16] for line, one in zip(found, digests, strict=True)},
        with_options.hex(),
    )

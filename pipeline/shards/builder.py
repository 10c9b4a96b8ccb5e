"""Builds one shard: reads the originals, makes the samples, writes the tar, then its sidecar."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, UserError, atomic_file, parse_config, write_json
from pipeline.contract.tar import read_samples
from pipeline.contract.tar_writer import TarWriter
from pipeline.errors import Failure
from pipeline.imaging.limits import ImageError
from pipeline.options import ShardOptions
from pipeline.originals.part_tars import (
    DamagedOriginal,
    parts_without_tar,
    read_original,
    read_originals,
)
from pipeline.select.selection import SelectedImage
from pipeline.shards.plan import PlannedImages, ShardPlan, planned_images
from pipeline.shards.samples import PROVENANCE_FLAGS, Sample, decode, make_samples, sample_members
from pipeline.shards.stats import PixelStats
from pipeline.web.failures import caught_failure, failure

STAGE = "shard"
_DAMAGED = "damaged"
_STATS = frozenset({"mean", "mean_square", "mean_image", "measured", *PROVENANCE_FLAGS})
_BATCH_VALUES = 1 << 20
"""Samples are encoded in batches of this many values: 85 samples of 64 × 64 pixels, 5 of 256."""


@dataclass(frozen=True)
class BuiltShard:
    """The sidecar of a shard.

    `digest` is that of its plan. `options` identifies the options that determine the samples.
    `images` contains the keys of the originals and short digests of their records, in order.
    `skipped` lists originals without a sample (`key`, `url`, `why`). `stats` contains sums for the
    card.
    """

    name: str
    digest: str
    options: str
    nsamples: int
    bytes: int
    sha256: str
    images: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


def find_built_shard(dataset: DatasetPaths, plan: ShardPlan) -> BuiltShard | None:
    """Return the existing shard if it is the planned one and its tar has the recorded size."""
    built = _read_sidecar(plan.sidecar(dataset))
    try:
        size = plan.tar(dataset).stat().st_size
    except OSError:
        return None
    same = built is not None and built.digest == plan.digest and built.bytes == size
    return built if same else None


def is_repairable(
    options: ShardOptions,
    source: DatasetPaths,
    classes: tuple[str, ...],
    plan: ShardPlan,
    built: BuiltShard,
) -> bool:
    """Return True if an original that was damaged when the shard was built is intact now, and all
    originals of the shard exist.

    Raises:
        UserError: the selection has changed since the plan.
    """
    damaged = {one["key"] for one in built.skipped if one["why"].startswith(_DAMAGED)}
    if not damaged:
        return False
    images = planned_images(options, source, classes, plan).images
    if not any(_is_intact(source, image) for image in images if image.key in damaged):
        return False
    return parts_without_tar(source).isdisjoint(image.record.part for image in images)


def _is_intact(source: DatasetPaths, image: SelectedImage) -> bool:
    try:
        _check_bytes(read_original(source, image.record), image)
    except (UserError, ImageError):
        return False
    return True


def _read_sidecar(path: Path) -> BuiltShard | None:
    try:
        built = parse_config(BuiltShard, json.loads(path.read_bytes()), str(path))
        return built if built.stats.keys() >= _STATS else None
    except (OSError, ValueError, RecursionError, UserError):
        return None


def build_shard(
    options: ShardOptions,
    source: DatasetPaths,
    target: DatasetPaths,
    classes: tuple[str, ...],
    plan: ShardPlan,
) -> BuiltShard:
    """Build one planned shard, or reuse the existing one. The tar appears complete or not at all.

    If the existing tar contains all planned images and more (an image was forgotten since), its
    members are copied, without the originals; the bytes are the same.

    Args:
        source: dataset whose selection and originals are used.
        target: dataset that the shard belongs to; often the same.
        classes: class names in the order of their numbers.

    Raises:
        UserError: the selection has changed since the plan, or originals are missing.
    """
    built = find_built_shard(target, plan)
    if built:
        return built
    planned = planned_images(options, source, classes, plan)
    skipped: list[dict[str, str]] = []
    sums = PixelStats(options.size, options.channels)
    old = reusable_shard(target, plan, planned)
    with atomic_file(plan.tar(target)) as file:
        tar = TarWriter(file)
        if old is None:
            _write_samples(options, source, planned, tar, sums, skipped)
        else:
            skipped += [one for one in old.skipped if one["key"] in planned.digests]
            _copy_samples(plan.tar(target), options, planned, tar, sums)
        tar.close()
        plan.sidecar(target).unlink(missing_ok=True)  # it describes the tar that is replaced now
    built = BuiltShard(
        name=plan.name,
        digest=plan.digest,
        options=planned.options,
        nsamples=sums.samples,
        bytes=tar.nbytes,
        sha256=tar.sha256,
        images=[f"{key} {digest}" for key, digest in planned.digests.items()],
        skipped=skipped,
        stats=sums.to_json(),
    )
    write_json(plan.sidecar(target), asdict(built))
    return built


def _write_samples(
    options: ShardOptions,
    source: DatasetPaths,
    planned: PlannedImages,
    tar: TarWriter,
    sums: PixelStats,
    skipped: list[dict[str, str]],
) -> None:
    """Make the samples of the planned images from the originals, and write them.

    They are encoded in batches, so that the encoder's code and tables stay in the processor's cache
    and are not evicted by the decoder's pixels.
    """
    waiting: list[tuple[Sample, SelectedImage, int | None]] = []
    values = 0
    originals = read_originals(source, (image.record for image in planned.images))
    for image, number, data in zip(planned.images, planned.classes, originals, strict=True):
        samples = _samples_or_failure(data, image, options)
        if isinstance(samples, Failure):
            skipped.append(_skip(samples, image))
            continue
        waiting += ((sample, image, number) for sample in samples)
        values += sum(sample.pixels.size for sample in samples)
        if values > _BATCH_VALUES:
            skipped += _write_batch(options, waiting, tar, sums)
            waiting, values = [], 0
    skipped += _write_batch(options, waiting, tar, sums)


def _samples_or_failure(
    data: bytes | DamagedOriginal, image: SelectedImage, options: ShardOptions
) -> list[Sample] | Failure:
    """Return the samples of one image, or its failure; errors of one image are caught here."""
    url, key = image.row.url, image.key
    try:
        if isinstance(data, DamagedOriginal):
            return failure(STAGE, url, _DAMAGED, key=key, detail=str(data))
        _check_bytes(data, image)
        return make_samples(data, image, options)
    except ImageError as error:
        return failure(STAGE, url, error.kind, key=key, detail=error.detail)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        return caught_failure(STAGE, url, error, key)


def _skip(failed: Failure, image: SelectedImage) -> dict[str, str]:
    """Return the entry of an image without a sample in `BuiltShard.skipped`."""
    return {"key": image.key, "url": image.row.url, "why": f"{failed.kind}: {failed.detail}"}


def _check_bytes(data: bytes, image: SelectedImage) -> None:
    """Check that an original has the recorded sha256.

    Raises:
        ImageError: it has not (`damaged`); the detail names the tar and the member.
    """
    if hashlib.sha256(data).hexdigest() != image.record.sha256:
        detail = f"{image.record.part}.tar: {image.record.member}: not the recorded sha256"
        raise ImageError(_DAMAGED, detail)


def _write_batch(
    options: ShardOptions,
    samples: Iterable[tuple[Sample, SelectedImage, int | None]],
    tar: TarWriter,
    sums: PixelStats,
) -> list[dict[str, str]]:
    """Write samples; return the entries of those that cannot be encoded, for `skipped`."""
    skipped = []
    for sample, image, number in samples:
        try:
            files = sample_members(sample, image, number, options)
        except Exception as error:  # noqa: BLE001 errors of one image are caught here
            skipped.append(_skip(caught_failure(STAGE, image.row.url, error, image.key), image))
            continue
        for name, data in files.items():
            tar.add(name, data)
        sums.add(sample.notes, lambda sample=sample: sample.pixels)  # type: ignore[misc]
    return skipped


def _copy_samples(
    old: Path, options: ShardOptions, planned: PlannedImages, tar: TarWriter, sums: PixelStats
) -> None:
    """Copy the samples of planned images from an existing shard."""
    for key, files in read_samples(old):
        if key.partition("_")[0] in planned.digests:
            for extension, data in files.items():
                tar.add(f"{key}.{extension}", data)
            notes = tuple(
                name for name, holds in json.loads(files["json"])["notes"].items() if holds
            )
            sums.add(notes, lambda data=files[options.format]: decode(data, options.channels))  # type: ignore[misc]


def reusable_shard(
    target: DatasetPaths, plan: ShardPlan, planned: PlannedImages
) -> BuiltShard | None:
    """Return the existing shard if it is intact, contains all planned images, and was built with
    the same options."""
    built = _read_sidecar(plan.sidecar(target))
    if built is None or built.options != planned.options:
        return None
    digests = dict(image.partition(" ")[::2] for image in built.images)
    if any(digests.get(key) != digest for key, digest in planned.digests.items()):
        return None
    try:
        with plan.tar(target).open("rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == built.sha256
    except OSError:
        return None
    return built if intact else None

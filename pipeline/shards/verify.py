"""Checks every shard against the index, member by member, and rebuilds damaged ones."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.contract import DatasetPaths, ShardEntry, ShardIndex, UserError, load_index
from pipeline.contract.tar import read_samples
from pipeline.cores import cpu_count
from pipeline.events import EventLog
from pipeline.imaging.limits import limit_decoding
from pipeline.recipe import Recipe
from pipeline.shards.plan import plan_shards
from pipeline.shards.samples import FORMATS
from pipeline.shards.stage import repairable_shards, shard, shard_target
from pipeline.units import count_of
from pipeline.web.failures import describe_internal
from pipeline.workers import run_unordered


@dataclass(frozen=True)
class VerifyResult:
    """The numbers of intact shards and samples; the errors by shard or file (`damaged`); whether
    the index matches the selection, options and originals (`current`); the names of rebuilt
    shards."""

    shards: int
    samples: int
    damaged: dict[str, str]
    current: bool
    repaired: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.damaged and self.current


def verify(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    repair: bool = False,
    workers: int | None = None,
    variant: str | None = None,
) -> VerifyResult:
    """Check every shard of the index: size, sha256, counts, unique keys, and each sample's members,
    image, provenance and class.

    Args:
        repair: rebuild damaged shards from the originals, keep the others, and update an index that
            is not `current`.

    Raises:
        UserError: there is no index (with `repair`: and it cannot be rebuilt), or the originals for
            a repair do not exist.
    """
    limit_decoding(recipe.originals.decode_megabytes)
    target = shard_target(dataset, variant)
    try:
        index, locations = load_index(target.shard_index)
    except UserError:
        if not repair:
            raise
        result = VerifyResult(0, 0, {target.shard_index.name: "missing or not an index"}, False)
    else:
        result = _check_all(index, [Path(one) for one in locations], log, workers or cpu_count())
        result = replace(result, current=_is_current(recipe, dataset, target, index))
    if not repair or result.is_valid:
        return result
    for name in result.damaged:
        for extension in ("tar", "json"):
            (target.shards_dir / f"{name}.{extension}").unlink(missing_ok=True)
    shard(recipe, dataset, log, workers, variant)
    after = verify(recipe, dataset, log, workers=workers, variant=variant)
    return replace(after, repaired=tuple(sorted(set(result.damaged) - set(after.damaged))))


def _is_current(
    recipe: Recipe, dataset: DatasetPaths, target: DatasetPaths, index: ShardIndex
) -> bool:
    try:
        plan = plan_shards(recipe.shards, dataset, target.name)
    except UserError:
        return False
    return plan.digest == index.digest and not repairable_shards(recipe, dataset, target, plan)


def _check_all(
    index: ShardIndex, paths: Sequence[Path], log: EventLog, workers: int
) -> VerifyResult:
    damaged: dict[str, str] = {}
    seen: dict[str, str] = {}
    done = samples = 0
    for place, (wrong, keys) in _check_shards(index, paths, workers):
        name = paths[place].stem
        twice = next((key for key in keys if key in seen), None)
        if wrong is None and twice is not None:
            wrong = f"{twice} is also in {seen[twice]}"
        seen.update(dict.fromkeys(keys, name))
        if wrong is None:
            samples += index.shardlist[place].nsamples
        else:
            damaged[name] = wrong
        done += index.shardlist[place].nsamples
        log.progress("verify", done, index.nsamples, "images")
    return VerifyResult(len(paths) - len(damaged), samples, dict(sorted(damaged.items())), True)


def _check_shards(
    index: ShardIndex, paths: Sequence[Path], workers: int
) -> Iterator[tuple[int, tuple[str | None, list[str]]]]:
    """Yield the position of each shard in the index and the result of `check_shard`, in any
    order."""
    metadata = replace(index, shardlist=(), counts={}, recipe={})
    pairs = zip(paths, index.shardlist, strict=True)
    calls = [partial(check_shard, path, entry, metadata) for path, entry in pairs]
    return run_unordered(workers, list(enumerate(calls)))


def check_shard(path: Path, entry: ShardEntry, index: ShardIndex) -> tuple[str | None, list[str]]:
    """Return the error of a shard (None if it is intact) and its keys."""
    try:
        if not path.is_file():
            return "not a file" if path.exists() else "No such file or directory", []
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size != entry.bytes:
                return f"{size} bytes, the index says {entry.bytes}", []
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                return "its sha256 is not the index's", []
        keys: list[str] = []
        for key, files in read_samples(path):
            wrong = _check_sample(files, index)
            if wrong:
                return f"{key}: {wrong}", keys
            keys.append(key)
    except OSError as error:
        return error.strerror or str(error), []
    except tarfile.TarError as error:
        return f"not a complete tar ({error})", []
    except Exception as error:  # noqa: BLE001 errors of one shard are caught here
        return f"internal: {describe_internal(error)}", []
    if len(keys) != entry.nsamples:
        return f"{count_of(len(keys), 'sample')}, the index says {entry.nsamples}", keys
    return None, keys


def _is_gray(image: Image.Image) -> bool:
    return bool((np.ptp(np.asarray(image), axis=2) <= 4).all())  # tolerance for lossy formats


def _check_sample(files: dict[str, bytes], index: ShardIndex) -> str | None:
    wanted = {index.format, "json", *(("cls",) if index.labels else ())}
    if set(files) != wanted:
        return f"members {sorted(files)}, not {sorted(wanted)}"
    number = None
    try:
        json.loads(files["json"])
        if index.labels:
            number = int(files["cls"])
        with Image.open(io.BytesIO(files[index.format]), formats=FORMATS) as image:
            if (image.height, image.width) != index.resolution:
                return f"{image.width} × {image.height} pixels, not those of the index"
            image.load()
            size, channels = (image.height, image.width), len(image.getbands())
            if index.format == "webp" and channels == 3 and _is_gray(image):
                channels = index.channels  # WebP stores gray as colour
            if index.format == "webp" and (channels, index.channels) == (3, 4):
                channels = 4  # WebP does not store an alpha that is opaque everywhere
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        return f"not readable ({error})"
    if (size, channels) != (index.resolution, index.channels):
        return f"{size} with {channels} channels, not {index.resolution} with {index.channels}"
    if number is not None and not 0 <= number < len(index.labels):
        return f"class {number} of {len(index.labels)}"
    return None

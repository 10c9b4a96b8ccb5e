"""Permanently removes images from a dataset, for takedown requests.

The request is recorded first (`forgotten.jsonl`, only keys), so `select` excludes the images even
if they are found again. Their bytes are removed from the originals, from the shards of the dataset
and of its variants, and from the contact sheet. Only shards that contain them are rewritten, from
the shard itself if the originals no longer exist. The URLs stay in the manifest, so that the images
are not fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config_io import parse_config
from pipeline.contract import (
    NAME,
    DatasetPaths,
    JsonlAppender,
    ManifestRow,
    OriginalRecord,
    UserError,
    image_key,
    now_utc,
    read_jsonl,
    write_json,
)
from pipeline.crawl.manifest_lookup import manifest_rows
from pipeline.curate.thumbnails import forget_thumbnails
from pipeline.events import EventLog
from pipeline.forgotten import forgotten_path, read_forgotten
from pipeline.options import SelectOptions, ShardOptions
from pipeline.originals.part_tars import editable_tar
from pipeline.originals.parts import (
    PartFiles,
    is_complete,
    planned_parts,
    read_journal,
    read_records,
    read_summary,
)
from pipeline.recipe import Recipe
from pipeline.remote.store import store_of, store_path
from pipeline.select.features import forget_features
from pipeline.select.foreign import LIST, SHEET
from pipeline.select.stage import select
from pipeline.shards.card import CARD_IMAGES
from pipeline.shards.exports import staging_folder
from pipeline.shards.recipe_snapshot import read_snapshot, recipe_snapshot_path
from pipeline.shards.stage import shard
from pipeline.web.urls import canonical_url, host_or_none


@dataclass(frozen=True)
class ForgetResult:
    """The numbers of newly forgotten images, of erased originals, and of rebuilt shards by dataset.
    `pending` images are in incomplete parts: they are in no shard, and running `forget` again
    erases them once the parts are complete."""

    images: int
    erased: int
    shards: dict[str, int]
    pending: int = 0


@dataclass(frozen=True)
class ForgetFilter:
    """The images to forget: those that match one of these. A host includes its subdomains; a
    licence matches if the image's licence contains it, ignoring case."""

    keys: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    licenses: tuple[str, ...] = ()

    def matches(self, row: ManifestRow) -> bool:
        host = (host_or_none(row.url) or "").casefold()
        words = row.license.casefold()
        return (
            row.key in self.keys
            or any(host == one or host.endswith(f".{one}") for one in self.hosts)
            or any(one.casefold() in words for one in self.licenses)
        )


def forget(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    *,
    urls: Iterable[str] = (),
    hosts: Iterable[str] = (),
    licenses: Iterable[str] = (),
    keys: Iterable[str] = (),
    workers: int | None = None,
) -> ForgetResult:
    """Forget images by URL, host, licence or key. If it is killed, run it again.

    Shards are rebuilt with their previous options, even if the recipe has changed.

    Raises:
        UserError: no filter was given, one is blank, or nothing in the manifest matches.
    """
    urls, hosts, licenses, keys = tuple(urls), tuple(hosts), tuple(licenses), tuple(keys)
    _refuse_blank({"--url": urls, "--host": hosts, "--license": licenses, "--key": keys})
    wanted = ForgetFilter(
        frozenset([*keys, *(image_key(canonical_url(url) or url) for url in urls)]),
        frozenset(host.casefold() for host in hosts),
        licenses,
    )
    if not (wanted.keys or wanted.hosts or wanted.licenses):
        raise UserError("forget: give a URL, a host, a licence or a key")
    found = _find_keys(dataset, wanted)
    if not found:
        raise UserError(f"{dataset.url_manifest}: lists no such image")
    new = _record_forgotten(dataset, found)
    erased = _erase(dataset, found)
    shown = [dataset.data_dir / name for name in (LIST, SHEET)]
    _remove(dataset, [dataset.manifest_dir / "preview.html", *shown])
    shutil.rmtree(staging_folder(dataset), ignore_errors=True)
    rebuilt = _rebuild(recipe, dataset, log, workers) if dataset.selection.exists() else {}
    return ForgetResult(new, erased, rebuilt, _count_pending(dataset, found))


def _refuse_blank(values: dict[str, tuple[str, ...]]) -> None:
    """Raise a `UserError` if a value of an option is blank: it would match every image."""
    for option, given in values.items():
        if not all(map(str.strip, given)):
            raise UserError(f"forget {option}: the value is blank; give one, or omit {option}")


def _find_keys(dataset: DatasetPaths, wanted: ForgetFilter) -> set[str]:
    return {row.key for row in manifest_rows(dataset) if wanted.matches(row)}


def _record_forgotten(dataset: DatasetPaths, found: set[str]) -> int:
    """Record the images that are not forgotten yet; return their number."""
    known = read_forgotten(dataset).keys
    held = {line["key"]: line["labels"] for line in read_jsonl(dataset.selection)
            if line["key"] in found}  # fmt: skip
    lines: list[dict[str, Any]] = [
        {"ts": now_utc(), "key": key, "held": key in held, "labels": held.get(key, [])}
        for key in sorted(found - known)
    ]
    with JsonlAppender(forgotten_path(dataset)) as file:
        if lines:
            file.append(*lines)
        file.sync()
    return len(lines)


def _erase(dataset: DatasetPaths, found: set[str]) -> int:
    """Overwrite the images in the originals with zeros; return the number of those that were not
    erased before."""
    by_part: dict[str, list[OriginalRecord]] = {}
    for record in read_records(dataset):
        if record.key in found:
            by_part.setdefault(record.part, []).append(record)
    erased = 0
    for part, records in sorted(by_part.items()):
        forget_features(dataset, part, (record.key for record in records))
        forget_thumbnails(dataset, part)
        with editable_tar(dataset, part) as files:
            if files is not None:
                erased += _erase_records(files, records)
    return erased


def _count_pending(dataset: DatasetPaths, found: set[str]) -> int:
    """Return the number of the images that are in incomplete parts."""
    parts = (part for part in planned_parts(dataset) if not is_complete(dataset, part))
    return sum(row["ok"] and row["key"] in found
               for part in parts for row in read_journal(dataset, part))  # fmt: skip


def _erase_records(files: PartFiles, records: Sequence[OriginalRecord]) -> int:
    erased = 0
    with files.tar.open("r+b") as tar:
        size = os.fstat(tar.fileno()).st_size
        for record in records:
            tar.seek(min(record.offset, size))
            data = tar.read(min(record.bytes, size))
            if any(data):
                erased += 1
                tar.seek(record.offset)
                tar.write(bytes(len(data)))
        tar.flush()
        os.fsync(tar.fileno())
        tar.seek(0)
        digest = hashlib.file_digest(tar, "sha256").hexdigest()
    summary = read_summary(files)
    if summary["sha256"] != digest:
        write_json(files.summary, {**summary, "sha256": digest})
    return erased


def _rebuild(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, workers: int | None
) -> dict[str, int]:
    """Select again, rebuild the shards of the dataset and its variants, and return their numbers by
    dataset."""
    made: dict[str, int] = {}
    kept = select(recipe_used_for(dataset, recipe), dataset, log).kept
    for target in (dataset, *variants(dataset)):
        if not kept:
            made[target.name] = _remove_shards(dataset, target)
        elif recipe_snapshot_path(target).exists():
            variant = None if target == dataset else target.name.removeprefix(f"{dataset.name}-")
            options = recipe_used_for(target, recipe)
            made[target.name] = shard(options, dataset, log, workers, variant).made
    return made


def _remove_shards(dataset: DatasetPaths, target: DatasetPaths) -> int:
    """Remove the shards and the card of a dataset without images; return 0."""
    shards = sorted(target.shards_dir.glob(f"{target.name}-*"))
    card_images = [target.manifest_dir / name for name in CARD_IMAGES]
    _remove(dataset, [target.shard_index, *shards, target.card, target.card_page, *card_images])
    return 0


def _remove(dataset: DatasetPaths, paths: Iterable[Path]) -> None:
    """Remove files on this machine and in the store, if they exist."""
    for path in paths:
        path.unlink(missing_ok=True)
        if dataset.store:
            store_of(dataset).remove(store_path(dataset, path))


def variants(dataset: DatasetPaths) -> list[DatasetPaths]:
    """Return the other datasets whose shards are built from this dataset's originals."""
    found = []
    for folder in sorted((dataset.root / "manifests").glob(f"{dataset.name}-*")):
        if not NAME.fullmatch(folder.name):
            continue
        target = DatasetPaths(folder.name, dataset.root)
        if read_snapshot(target).get("source") == dataset.name:
            found.append(target)
    return found


def recipe_used_for(target: DatasetPaths, recipe: Recipe) -> Recipe:
    """Return the recipe with the options of the existing shards of `target`; unchanged if there are
    none."""
    used, path = read_snapshot(target), recipe_snapshot_path(target)
    if not used:
        return recipe
    return replace(
        recipe,
        title=str(used.get("title", "")),
        select=parse_config(SelectOptions, used.get("select"), f"{path}: select"),
        shards=parse_config(ShardOptions, used.get("shards"), f"{path}: shards"),
    )

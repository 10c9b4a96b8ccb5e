"""Assigns manifest rows to parts, by key and not by position, because users edit the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from pipeline.contract import DatasetPaths, ManifestRow
from pipeline.crawl.manifest_lookup import batches, manifest_rows
from pipeline.databases import KeyIndex, sqlite_errors
from pipeline.originals.parts import (
    INDEX,
    PART_SIZE,
    PartFiles,
    has_damaged_summary,
    is_complete,
    part_name,
    planned_parts,
    read_journal,
    write_plan,
)


def assign_parts(dataset: DatasetPaths) -> list[str]:
    """Assign manifest rows that belong to no part yet to new parts.

    Memory does not grow with the manifest: assigned keys are looked up in an index on disk, which
    is rebuilt from the plans if it is missing.

    Returns:
        the names of the incomplete parts, in order.

    Raises:
        UserError: a line of the manifest is not a manifest row.
    """
    dataset.originals_dir.mkdir(parents=True, exist_ok=True)
    path = dataset.originals_dir / INDEX
    with sqlite_errors(path, "remove it; it will be rebuilt"), closing(KeyIndex(path)) as index:
        if _restore_plans(dataset):
            index.clear()
        parts = planned_parts(dataset)
        _catch_up(index, dataset, parts)
        number = int(parts[-1].rpartition("-")[2]) + 1 if parts else 0
        for rows in batches(_new_rows(index, manifest_rows(dataset)), PART_SIZE):
            part = part_name(dataset, number)
            write_plan(dataset, part, [row.to_json() for row in rows])
            index.add(part, ((row.key, number) for row in rows))
            parts.append(part)
            number += 1
    for part in parts:
        if PartFiles(dataset, part).tar.exists() and has_damaged_summary(dataset, part):
            PartFiles(dataset, part).summary.unlink()  # it is rebuilt from the journal
    return [part for part in parts if not is_complete(dataset, part)]


def _catch_up(index: KeyIndex, dataset: DatasetPaths, parts: list[str]) -> None:
    """Add the plans that the index lacks because it is new, or because a run was killed."""
    known = index.sources()
    if not known <= set(parts):  # parts were deleted, so their rows must be downloaded again
        index.clear()
        known = set()
    for part in parts:
        if part not in known:
            number = int(part.rpartition("-")[2])
            index.add(part, ((row.key, number) for row in PartFiles(dataset, part).rows()))


def _restore_plans(dataset: DatasetPaths) -> bool:
    """Rebuild lost plans whose journals still exist, so that their images are not fetched again.
    Return True if there were any."""
    journals = {path.stem for path in dataset.originals_dir.glob(f"{dataset.name}-*.jsonl")}
    lost = sorted(part for part in journals - set(planned_parts(dataset)) if "." not in part)
    for part in lost:
        keys = {row["key"] for row in read_journal(dataset, part)}
        rows = (row for row in manifest_rows(dataset) if row.key in keys)
        planned = {row.key: row.to_json() for row in rows}
        write_plan(dataset, part, list(planned.values()))
    return bool(lost)


def _new_rows(index: KeyIndex, rows: Iterator[ManifestRow]) -> Iterator[ManifestRow]:
    """Yield the rows whose keys are not assigned; the first one of those with the same key."""
    waiting: set[str] = set()
    for row in rows:
        if row.key not in waiting and index.get(row.key) is None:
            if len(waiting) == PART_SIZE:
                waiting.clear()  # the previous batch is assigned
            waiting.add(row.key)
            yield row


def rows_for_keys(dataset: DatasetPaths, keys: set[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of `keys` in the manifest, else in the plans."""
    found: dict[str, dict[str, Any]] = {}
    for part in planned_parts(dataset):
        for row in PartFiles(dataset, part).rows():
            if row.key in keys:
                found[row.key] = row.to_json()
    found |= {row.key: row.to_json() for row in manifest_rows(dataset) if row.key in keys}
    return found

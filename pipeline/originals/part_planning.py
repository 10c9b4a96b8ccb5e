"""Which manifest row belongs to which part. Keyed by URL, never by position: people edit files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, ManifestRow
from pipeline.crawl.manifest_lookup import manifest_rows
from pipeline.databases import sqlite_errors
from pipeline.originals.parts import (
    PART_SIZE,
    PartFiles,
    is_complete,
    part_name,
    planned_parts,
    write_plan,
)

INDEX = "keys.sqlite"


def assign_parts(dataset: DatasetPaths) -> list[str]:
    """Assign the manifest rows that are in no part yet to new parts.

    Memory does not grow with the manifest: the keys that are assigned are looked up in an index
    on disk, which is made anew from the plans where it is missing.

    Returns:
        the names of the parts that are not complete, in order.

    Raises:
        UserError: a line of the manifest is no manifest row.
    """
    dataset.originals_dir.mkdir(parents=True, exist_ok=True)
    parts = planned_parts(dataset)
    path = dataset.originals_dir / INDEX
    with sqlite_errors(path, "remove it; it is made again"), closing(_open_index(path)) as index:
        _catch_up(index, dataset, parts)
        number = int(parts[-1].rpartition("-")[2]) + 1 if parts else 0
        for rows in _batches(_new_rows(index, manifest_rows(dataset)), PART_SIZE):
            part = part_name(dataset, number)
            write_plan(dataset, part, [row.to_json() for row in rows])
            _assign(index, part, (row.key for row in rows))
            parts.append(part)
            number += 1
    return [part for part in parts if not is_complete(dataset, part)]


def _open_index(path: Path) -> sqlite3.Connection:
    try:
        return _new_index(path)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in _DAMAGED:
            raise
        path.unlink(missing_ok=True)
        return _new_index(path)


_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)


def _new_index(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, isolation_level=None)
    # Derived data: when a power cut breaks it, it is made anew.
    for statement in (
        "PRAGMA journal_mode = TRUNCATE",
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -65536",
        "CREATE TABLE IF NOT EXISTS keys (key INTEGER PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS parts (part TEXT PRIMARY KEY)",
        "SELECT count(*) FROM parts",
    ):
        index.execute(statement)
    return index


def _number(key: str) -> int:
    """The key as SQLite's signed 64-bit integer."""
    return int(key, 16) - (1 << 63)


def _assign(index: sqlite3.Connection, part: str, keys: Iterable[str]) -> None:
    index.execute("BEGIN")
    index.executemany("INSERT OR IGNORE INTO keys VALUES (?)", ((_number(key),) for key in keys))
    index.execute("INSERT OR IGNORE INTO parts VALUES (?)", (part,))
    index.execute("COMMIT")


def _catch_up(index: sqlite3.Connection, dataset: DatasetPaths, parts: list[str]) -> None:
    """Take up the plans that the index does not know: a kill came between, or it is new."""
    known = {part for (part,) in index.execute("SELECT part FROM parts")}
    if not known <= set(parts):
        # Parts were deleted: their rows are to be had again.
        index.execute("DELETE FROM keys")
        index.execute("DELETE FROM parts")
        known = set()
    for part in parts:
        if part not in known:
            _assign(index, part, (row.key for row in PartFiles(dataset, part).rows()))


def _new_rows(index: sqlite3.Connection, rows: Iterator[ManifestRow]) -> Iterator[ManifestRow]:
    """The rows whose keys are not assigned; of rows with the same key the first."""
    waiting: set[str] = set()
    look_up = index.cursor()
    for row in rows:
        if row.key in waiting:
            continue
        found = look_up.execute("SELECT 1 FROM keys WHERE key = ?", (_number(row.key),))
        if found.fetchone() is None:
            if len(waiting) == PART_SIZE:
                waiting.clear()  # the batch before was assigned
            waiting.add(row.key)
            yield row


def _batches(rows: Iterator[ManifestRow], size: int) -> Iterator[list[ManifestRow]]:
    batch: list[ManifestRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def rows_for_keys(dataset: DatasetPaths, keys: set[str]) -> dict[str, dict[str, Any]]:
    """The planned manifest rows of `keys`."""
    found: dict[str, dict[str, Any]] = {}
    for part in planned_parts(dataset):
        for row in PartFiles(dataset, part).rows():
            if row.key in keys:
                found[row.key] = row.to_json()
    return found

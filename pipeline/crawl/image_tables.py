"""Tables and checksums of the image index."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipeline.contract import ManifestRow

BATCH = 5000
"""Number of rows that are written together."""

_TAIL = 4096

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    key INTEGER NOT NULL, page INTEGER NOT NULL, facts INTEGER NOT NULL, PRIMARY KEY (key, page)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_page ON images (page);
CREATE TABLE IF NOT EXISTS recent (
    key INTEGER NOT NULL, page INTEGER NOT NULL, facts INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS revised (
    key INTEGER NOT NULL, page TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (key, page)
) WITHOUT ROWID;
"""

T = TypeVar("T")


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield `items` in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit all changes of the block, or none if it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back when the disk is full
            db.execute("ROLLBACK")
        raise


def key_number(key: str) -> int:
    """Return a manifest key as SQLite's signed 64-bit integer."""
    number = int(key, 16)
    return number - (1 << 64) if number >= 1 << 63 else number


def row_checksum(row: ManifestRow) -> int:
    """Return a checksum of the metadata of an image on a page, to detect changes."""
    metadata: list[object] = [row.title, row.labels, row.license, row.attribution]
    text = json.dumps([*metadata, row.page_opt_out] if row.page_opt_out else metadata)
    return zlib.crc32(text.encode()) + 1


def tail_digest(path: Path, end: int) -> str:
    """Return a digest of the last bytes of a file before `end`, to recognise the file."""
    with path.open("rb") as file:
        file.seek(max(0, end - _TAIL))
        return hashlib.sha256(file.read(min(end, _TAIL))).hexdigest()

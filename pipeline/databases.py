"""SQLite: errors as one line with advice, and an index of numbers by image key."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

_MIN_FREE_BYTES = 256 << 10
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NOT_ACCESSIBLE = (
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
)  # fmt: skip

_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
_STATEMENTS = (
    # Derived data: rebuilt if a power cut damages it.
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -65536",
    "DROP TABLE IF EXISTS keys",  # version 1, with `parts`
    "DROP TABLE IF EXISTS parts",
    "CREATE TABLE IF NOT EXISTS numbers (key INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS sources (name TEXT PRIMARY KEY)",
    "SELECT count(*) FROM sources",
)


@contextmanager
def sqlite_errors(path: Path, if_damaged: str) -> Iterator[None]:
    """Convert the errors of the database `path` into user errors.

    Args:
        if_damaged: what to do if the file is damaged.

    Raises:
        OSError: the disk is full.
        UserError: the file is locked, not accessible or damaged, or the disk fails.
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # an error of this program
    except sqlite3.Error as error:
        raise _user_error(path, error, if_damaged) from None


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


def _user_error(path: Path, error: sqlite3.Error, if_damaged: str) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    failed = primary == sqlite3.SQLITE_IOERR
    if primary == sqlite3.SQLITE_FULL or (failed and _free_bytes(path) < _MIN_FREE_BYTES):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if failed:
        return UserError(
            f"{path}: {error}: the disk failed, or a limit on the file size was reached; correct "
            "that and run the same command again (the file is kept)"
        )
    if primary in _BUSY:
        return UserError(
            f"{path}: {error}: another program uses it; end it and run the same command again"
        )
    if primary in _NOT_ACCESSIBLE:
        return UserError(
            f"{path}: {error}; let this user write the file and its folder, and run the same "
            "command again"
        )
    return UserError(f"{path}: {error}; {if_damaged}")


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return _MIN_FREE_BYTES


class KeyIndex:
    """Numbers by key, and the names of the sources whose keys were added.

    Args:
        path: the SQLite file, which is replaced by an empty one if it is damaged; None: a temporary
            file.
    """

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if path is None or error.sqlite_errorcode not in _DAMAGED:
                raise
            path.unlink(missing_ok=True)
            self._db = _open(path)

    def close(self) -> None:
        self._db.close()

    def add(self, source: str, numbers: Iterable[tuple[str, int]]) -> None:
        """Add the (key, number) pairs of a source, all or none. A key that was added before keeps
        its number."""
        pairs = ((_signed(key), number) for key, number in numbers)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO numbers VALUES (?, ?)", pairs)
        self._db.execute("INSERT OR IGNORE INTO sources VALUES (?)", (source,))
        self._db.execute("COMMIT")

    def get(self, key: str) -> int | None:
        """Return the number of `key`, or None if the key was not added."""
        query = "SELECT number FROM numbers WHERE key = ?"
        row = self._db.execute(query, (_signed(key),)).fetchone()
        return None if row is None else int(row[0])

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM numbers").fetchone()[0])

    def sources(self) -> set[str]:
        """Return the names of the sources that were added."""
        return {name for (name,) in self._db.execute("SELECT name FROM sources")}

    def clear(self) -> None:
        """Remove all keys and sources."""
        self._db.execute("DELETE FROM numbers")
        self._db.execute("DELETE FROM sources")


def _open(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or "", isolation_level=None)
    try:
        for statement in _STATEMENTS:
            db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


def _signed(key: str) -> int:
    """Return the key as a signed 64-bit integer, as SQLite stores it."""
    return int(key, 16) - (1 << 63)

"""Converts SQLite errors into one line with advice."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

_MIN_FREE_BYTES = 256 << 10
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NOT_ACCESSIBLE = (
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
)  # fmt: skip


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

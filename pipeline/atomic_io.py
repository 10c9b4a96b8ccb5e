"""Crash-safe file writes.

Whole files appear under their name only when complete (`write_atomic`); a lock belongs to a process
and ends with it (`lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.reading import open_regular


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that becomes `path` if the block succeeds, and is removed if it
    fails.

    It is in the folder of `path`, and is flushed, synced and renamed; the folder is synced too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o644)
            yield file
            file.flush()
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the error of a full disk names no file
        raise
    _sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write the whole of `data` to `path`, or nothing. Text is written as UTF-8; half a surrogate
    pair becomes an escape, which JSON reads back."""
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically, with a stable key order."""
    write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """Return what `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def remove_temp_files(folder: Path, min_age: float = 0.0) -> None:
    """Remove the temporary files of a killed `atomic_file` from `folder`, if they were written at
    least `min_age` seconds ago. If other processes may write there, give the time in which they
    certainly finish a file."""
    latest = time.time() - min_age
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if not min_age or path.lstat().st_mtime <= latest:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileLock:
    """The exclusive lock of a file, returned by `lock`. The end of a `with` block releases it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file

    def release(self, remove: bool = False) -> None:
        """Release the lock; a second call does nothing.

        Args:
            remove: also remove the file.
        """
        if not self._file.closed:
            if remove:  # before the release: `lock` checks that the file it opened still exists
                self._path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(path: Path, busy: Callable[[str], Exception]) -> FileLock:
    """Create and lock the file `path`, and write the id of this process into it.

    The lock is released when the process ends, even if it is killed.

    Args:
        busy: returns the error to raise if the file is locked; its argument is the id of the
            process that holds the lock, or `unknown`.
    """
    while True:
        file = open_to_append(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                file.truncate(0)
                with contextlib.suppress(OSError):  # a full disk: locked, but without the id
                    file.write(str(os.getpid()).encode())
                return FileLock(path, file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            file.close()
            raise busy(holder) from None
        except FileNotFoundError:
            pass  # the process that held the lock removed it
        except BaseException:
            file.close()
            raise
        file.close()


def is_locked(path: Path) -> bool:
    """Return True if the file exists and is locked. Does not change it."""
    try:
        file = os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def open_to_append(path: Path) -> IO[bytes]:
    """Open a regular file to read and append; create it if it does not exist."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    return os.fdopen(open_regular(path, flags), "a+b", buffering=0)

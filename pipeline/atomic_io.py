"""Crash-safe file writes.

Whole files appear under their name only when complete (`write_atomic`). Logs grow by whole lines
(`JsonlAppender`); a line torn by a crash is dropped by the next writer and ignored by readers. A
last line that a person wrote without its newline counts: torn lines are no complete JSON objects.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pipeline.errors import UserError
from pipeline.reading import open_regular
from pipeline.versions import migrate

_READ_SIZE = 1 << 16
_REPAIR_ADVICE = "correct or delete this line"

T = TypeVar("T")


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
        file = _open_to_append(path)
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


def _open_to_append(path: Path) -> IO[bytes]:
    """Open a regular file to read and append; create it if it does not exist."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    return os.fdopen(open_regular(path, flags), "a+b", buffering=0)


class JsonlAppender:
    """Appends whole JSON lines; several processes may append to the same file.

    Each line is one write under a file lock. The constructor removes a last line that a crash left
    incomplete, and ends one that lacks only its newline.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_to_append(path)
        with self._lock():
            self._file.seek(end := _end_of_lines(self._file))
            if rest := self._file.read():
                if _is_object(rest):
                    self._file.write(b"\n")
                else:
                    self._file.truncate(end)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def append(self, *rows: Any) -> None:
        """Append each row as one line, all of them or none."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = text.encode(errors="replace")
        with self._lock():
            end = self._file.seek(0, os.SEEK_END)
            view = memoryview(data)
            try:
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:  # such as a full disk: leave no incomplete line
                self._file.truncate(end)
                error.filename = self._file.name
                raise

    def sync(self) -> None:
        """Sync the appended lines to the disk. They survive a kill without it, but not a power
        cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlAppender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end_of_lines(file: IO[bytes]) -> int:
    """Return the length of `file` up to and including its last newline."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _READ_SIZE)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def complete_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a JSONL file, each with its newline, without an incomplete last one."""
    for line in file:
        if line.endswith(b"\n"):
            yield line
        elif _is_object(line):
            yield line + b"\n"


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file, in order; none if the file does not exist.

    An incomplete last line was left by a crash and is ignored.

    Raises:
        UserError: a complete line is not a JSON object; the message names file and line.
    """
    return (row for _, row in _numbered_rows(path))


def read_rows(
    path: Path, build: Callable[[dict[str, Any]], T], advice: str = _REPAIR_ADVICE
) -> Iterator[T]:
    """Yield `build(row)` for each row of a JSONL file, as read by `read_jsonl`.

    All these files have version 1, which is also the version of a row without `version`.

    Args:
        advice: what to do about a damaged line.

    Raises:
        UserError: a row has a later version, or `build` raised a ValueError, KeyError or TypeError;
            the message names file and line and says why.
    """
    for number, row in _numbered_rows(path, advice):
        if "version" in row:
            row = migrate(row, (), f"{path}:{number}")
        try:
            built = build(row)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}:{number}: {error}; {advice}") from None
        except KeyError as error:
            raise UserError(f"{path}:{number}: {error.args[0]}: missing; {advice}") from None
        yield built


def _numbered_rows(
    path: Path, advice: str = _REPAIR_ADVICE
) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return
    with os.fdopen(open_regular(path), "rb") as file:
        for number, line in enumerate(complete_lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); {advice}") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: not a JSON object; {advice}")
            yield number, row

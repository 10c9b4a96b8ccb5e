"""Files of JSON lines, which grow by whole lines.

A line torn by a crash is dropped by the next writer and ignored by readers. A last line that a
person wrote without its newline counts: torn lines are no complete JSON objects.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pipeline.atomic_io import open_to_append
from pipeline.errors import UserError
from pipeline.reading import open_regular
from pipeline.versions import migrate

_READ_SIZE = 1 << 16
_REPAIR_ADVICE = "correct or delete this line"

T = TypeVar("T")


class JsonlAppender:
    """Appends whole JSON lines; several processes may append to the same file.

    Each line is one write under a file lock. The constructor removes a last line that a crash left
    incomplete, and ends one that lacks only its newline.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_to_append(path)
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

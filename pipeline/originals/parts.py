"""The originals on disk: parts of about 1,000 images, each a tar, a journal and a summary.

An image counts once its line in the journal is written. The next run keeps complete images in the
tar whose line is missing, and truncates the tar after them. A part is complete when its summary
exists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.atomic_io import FileLock, lock
from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord, read_rows, write_atomic
from pipeline.errors import UserError
from pipeline.reading import read_bytes
from pipeline.units import count_of

PART_SIZE = 1000
INDEX = "keys.sqlite"
"""File name of the index of the keys in all plans."""

T = TypeVar("T")
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class PartFiles:
    """The files of one part."""

    dataset: DatasetPaths
    part: str

    def _file(self, extension: str) -> Path:
        return self.dataset.originals_dir / f"{self.part}.{extension}"

    @property
    def plan(self) -> Path:
        return self._file("plan.jsonl")

    @property
    def tar(self) -> Path:
        return self._file("tar")

    @property
    def journal(self) -> Path:
        return self._file("jsonl")

    @property
    def summary(self) -> Path:
        return self._file("json")

    @property
    def lock(self) -> Path:
        """Exists while a process works on the part (see `part_lock.lock_part`)."""
        return self._file("lock")

    def without_summary(self) -> list[Path]:
        """Return the files that exist before the summary."""
        return [self.plan, self.journal, self.tar]

    def rows(self) -> Iterator[ManifestRow]:
        """Return the manifest rows of the part.

        Raises:
            UserError: a line of the plan is invalid; the message names file and line.
        """
        advice = "correct or delete this line"
        if not self.summary.exists():  # the image must be planned again
            advice += f", and remove {INDEX} beside the file"
        return read_rows(self.plan, _planned_row, advice)


def _planned_row(row: dict[str, Any]) -> ManifestRow:
    planned = ManifestRow.from_json(row)
    if not _KEY.fullmatch(planned.key):
        raise ValueError(f"key: not 16 hex digits: {planned.key!r:.60}")
    return planned


def part_name(dataset: DatasetPaths, number: int) -> str:
    return f"{dataset.name}-{number:06d}"


def planned_parts(dataset: DatasetPaths) -> list[str]:
    """Return the names of all planned parts, in order."""
    pattern = re.compile(re.escape(dataset.name) + r"-(\d{6,})\.plan\.jsonl")
    if not dataset.originals_dir.is_dir():
        return []
    numbers = [
        int(match[1])
        for path in dataset.originals_dir.iterdir()
        if (match := pattern.fullmatch(path.name))
    ]
    return [part_name(dataset, number) for number in sorted(numbers)]


def next_part(dataset: DatasetPaths) -> str:
    """Return the name of the next part to plan."""
    parts = planned_parts(dataset)
    return part_name(dataset, int(parts[-1].rpartition("-")[2]) + 1 if parts else 0)


def write_plan(dataset: DatasetPaths, part: str, rows: list[dict[str, Any]]) -> None:
    """Write the manifest rows of a part, so that downloading it needs no other file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(PartFiles(dataset, part).plan, text.encode(errors="replace"))


def is_complete(dataset: DatasetPaths, part: str) -> bool:
    return PartFiles(dataset, part).summary.exists()


def read_summary(files: PartFiles) -> dict[str, Any]:
    """Return the summary of a complete part.

    Raises:
        UserError: it is damaged; `assign_parts` removes it if the tar is on this machine.
    """
    try:
        values = json.loads(read_bytes(files.summary))
        good = isinstance(values["nsamples"], int) and isinstance(values["image_bytes"], int)
        good = good and isinstance(values["failed"], dict) and isinstance(values["sha256"], str)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        remove = "" if files.tar.exists() else "remove it and "
        raise UserError(f"{files.summary}: damaged; {remove}run download, which writes it again")
    return dict(values)


def has_damaged_summary(dataset: DatasetPaths, part: str) -> bool:
    """Return True if the summary of a part exists but cannot be read."""
    files = PartFiles(dataset, part)
    try:
        return files.summary.exists() and not read_summary(files)
    except UserError:
        return True


def journal_line(part: str, row: dict[str, Any]) -> dict[str, Any]:
    """Check a line of a part's journal and return it.

    Raises:
        ValueError: it is invalid; the message names the member.
    """
    _record_of(part, row)
    return row


def _record_of(part: str, row: dict[str, Any]) -> OriginalRecord | None:
    """Check a line of a part's journal; return its record, or None if it is a failure."""
    if not isinstance(row.get("key"), str) or not _KEY.fullmatch(row["key"]):
        raise ValueError(f"key: not 16 hex digits: {row.get('key')!r:.60}")
    if row.get("ok") is True:
        record = OriginalRecord.from_json(row)
        if record.part != part or not record.member.startswith(f"{record.key}."):
            raise ValueError(f"part or member: of another image: {record.part}, {record.member}")
        if type(end := row.get("end")) is not int or end < record.offset + record.bytes:
            raise ValueError(f"end: not where the image can end: {end!r:.60}")
        return record
    if row.get("ok") is not False or not isinstance(row.get("kind"), str):
        raise ValueError("ok or kind: missing")
    return None


def read_journal(dataset: DatasetPaths, part: str) -> Iterator[dict[str, Any]]:
    """Return the lines of a part's journal: `ok` true with an `OriginalRecord`, or false with a
    kind.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    return _read_lines(dataset, part, journal_line)


def _read_lines(
    dataset: DatasetPaths, part: str, build: Callable[[str, dict[str, Any]], T]
) -> Iterator[T]:
    files, line = PartFiles(dataset, part), partial(build, part)
    if not files.summary.exists():
        return read_rows(files.journal, line)
    return read_rows(files.journal, line, _journal_advice(files))


def _journal_advice(files: PartFiles) -> str:
    """Return how to repair a complete part with a damaged journal."""
    return (
        f"restore it from a copy, or remove {files.summary.name} beside it and run download, which "
        "reads the tar again and fetches what is missing"
    )


def read_records(dataset: DatasetPaths) -> Iterator[OriginalRecord]:
    """Yield the downloaded images of the complete parts."""
    for part in planned_parts(dataset):
        if is_complete(dataset, part):
            yield from read_part(dataset, part)


def read_part(dataset: DatasetPaths, part: str) -> Iterator[OriginalRecord]:
    """Yield the downloaded images of one part.

    Raises:
        UserError: the journal is damaged, or has fewer images than the summary.
    """
    count = 0
    for record in _read_lines(dataset, part, _record_of):
        if record:
            count += 1
            yield record
    files = PartFiles(dataset, part)
    if is_complete(dataset, part) and not has_damaged_summary(dataset, part):
        expected = read_summary(files)["nsamples"]
        if count < expected:
            raise UserError(
                f"{files.journal}: {count_of(count, 'image')}, the summary counts {expected:,}; "
                f"{_journal_advice(files)}"
            )


class PartLocked(UserError):
    """Another process works on the part."""


def lock_part(path: Path) -> FileLock:
    """Lock the part whose lock file is `path`.

    Raises:
        PartLocked: another process, or another writer in this one, has locked the part.
    """
    return lock(
        path,
        lambda holder: PartLocked(f"{path}: process {holder} is working on this part"),
    )

"""The originals on disk: parts of about 1,000 images, each a tar, a journal and a summary.

The journal is the truth. An image counts once its line is written; the next run cuts off what the
tar holds beyond that. A part is complete when its summary exists.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.contract import (
    DatasetPaths,
    ManifestRow,
    OriginalRecord,
    UserError,
    read_rows,
    write_atomic,
)
from pipeline.reading import read_bytes
from pipeline.remote.part_store import (
    read_range,
    store_of,
    store_path,
    stored_tars,
    upload_part,
)

PART_SIZE = 1000
INDEX = "keys.sqlite"
"""The index of the keys in all plans."""

_KEY = re.compile(r"[0-9a-f]{16}")
_PREFETCH = 8


@dataclass(frozen=True)
class PartFiles:
    """The files of one part."""

    dataset: DatasetPaths
    part: str

    def _file(self, ending: str) -> Path:
        return self.dataset.originals_dir / f"{self.part}.{ending}"

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
        """There while a process works on the part (see `part_lock.lock_part`)."""
        return self._file("lock")

    def without_summary(self) -> list[Path]:
        """Return the files that exist before the summary."""
        return [self.plan, self.journal, self.tar]

    def rows(self) -> Iterator[ManifestRow]:
        """Return the manifest rows of the part.

        Raises:
            UserError: a line of the plan is none; the message names file and line.
        """
        advice = "correct or delete this line"
        if not self.summary.exists():  # the image is to be planned again
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
    """Return the names of all parts that were planned, in order."""
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
    """Plan a part: its manifest rows, so that it can be worked on from this file alone."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(PartFiles(dataset, part).plan, text.encode(errors="replace"))


def is_complete(dataset: DatasetPaths, part: str) -> bool:
    return PartFiles(dataset, part).summary.exists()


class DamagedOriginal(UserError):
    """The bytes of one original are missing or differ from its record; others may be intact."""


def read_summary(files: PartFiles) -> dict[str, Any]:
    """Return the summary of a complete part.

    Raises:
        UserError: it is damaged; `assign_parts` removes it if the tar is here.
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
    """Return True if a part has a summary that cannot be read."""
    files = PartFiles(dataset, part)
    try:
        return files.summary.exists() and not read_summary(files)
    except UserError:
        return True


def journal_line(part: str, row: dict[str, Any]) -> dict[str, Any]:
    """Check a line of a part's journal and return it.

    Raises:
        ValueError: it is none; the message names the member.
    """
    if not isinstance(row.get("key"), str) or not _KEY.fullmatch(row["key"]):
        raise ValueError(f"key: not 16 hex digits: {row.get('key')!r:.60}")
    if row.get("ok") is True:
        record = OriginalRecord.from_json(row)
        if record.part != part or not record.member.startswith(f"{record.key}."):
            raise ValueError(f"part or member: of another image: {record.part}, {record.member}")
        if type(end := row.get("end")) is not int or end < record.offset + record.bytes:
            raise ValueError(f"end: not where the image can end: {end!r:.60}")
    elif row.get("ok") is not False or not isinstance(row.get("kind"), str):
        raise ValueError("ok or kind: missing")
    return row


def read_journal(dataset: DatasetPaths, part: str) -> Iterator[dict[str, Any]]:
    """Return the lines of a part's journal: `ok` true with an `OriginalRecord`, or false with a
    kind.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    files = PartFiles(dataset, part)
    line = partial(journal_line, part)
    if not files.summary.exists():
        return read_rows(files.journal, line)
    return read_rows(files.journal, line, _journal_advice(files))


def _journal_advice(files: PartFiles) -> str:
    """Return how to repair a complete part with a damaged journal."""
    return (
        f"restore it from a copy, or remove {files.summary.name} beside it and run download, which "
        "fetches what is missing"
    )


def read_records(dataset: DatasetPaths) -> Iterator[OriginalRecord]:
    """Yield the good images of the complete parts."""
    for part in planned_parts(dataset):
        if is_complete(dataset, part):
            yield from read_part(dataset, part)


def read_part(dataset: DatasetPaths, part: str) -> Iterator[OriginalRecord]:
    """Yield the good images of one part.

    Raises:
        UserError: the journal is damaged, or has fewer images than the summary.
    """
    count = 0
    for row in read_journal(dataset, part):
        if row["ok"]:
            count += 1
            yield OriginalRecord.from_json(row)
    files = PartFiles(dataset, part)
    if is_complete(dataset, part) and not has_damaged_summary(dataset, part):
        expected = read_summary(files)["nsamples"]
        if count < expected:
            raise UserError(
                f"{files.journal}: {count:,} images, the summary counts {expected:,}; "
                f"{_journal_advice(files)}"
            )


def read_original(dataset: DatasetPaths, record: OriginalRecord) -> bytes:
    """Return the bytes of one image with one seek, or with one request if the tar is in the store.

    Raises:
        UserError: the tar does not exist.
        DamagedOriginal: it is shorter than the record says, or cannot be read at that place.
    """
    path = PartFiles(dataset, record.part).tar
    try:
        data = _read_range(dataset, path, record.offset, record.bytes)
    except FileNotFoundError as error:
        why = error.strerror or "not in the store"
        raise UserError(f"{path}: {record.member}: {why}") from None
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DamagedOriginal(f"{path}: {record.member}: {why}") from None
    if len(data) != record.bytes:
        raise DamagedOriginal(f"{path}: {record.member}: cut off")
    return data


def _read_range(dataset: DatasetPaths, path: Path, offset: int, size: int) -> bytes:
    if dataset.store and not path.exists():
        return read_range(dataset, path, offset, offset + size)
    with path.open("rb") as file:
        file.seek(offset)
        left = max(0, os.fstat(file.fileno()).st_size - offset)
        return file.read(min(size, left))  # a damaged record may have any size


def read_originals(
    dataset: DatasetPaths, records: Iterable[OriginalRecord]
) -> Iterator[bytes | DamagedOriginal]:
    """Yield the bytes of images in order, or why an image has none. Reads ahead from a store.

    Raises:
        UserError: as `read_original`, if the tar does not exist.
    """
    if not dataset.store:
        yield from (_read_or_damage(dataset, record) for record in records)
        return
    with ThreadPoolExecutor(_PREFETCH) as pool:
        waiting: deque[Future[bytes | DamagedOriginal]] = deque()
        for record in records:
            waiting.append(pool.submit(_read_or_damage, dataset, record))
            if len(waiting) > _PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_or_damage(dataset: DatasetPaths, record: OriginalRecord) -> bytes | DamagedOriginal:
    try:
        return read_original(dataset, record)
    except DamagedOriginal as error:
        return error


def parts_without_tar(dataset: DatasetPaths) -> set[str]:
    """Return the planned parts whose tar is neither here nor in the store."""
    gone = {part for part in planned_parts(dataset) if not PartFiles(dataset, part).tar.exists()}
    if gone and dataset.store:
        gone -= {name.removesuffix(".tar") for name in stored_tars(dataset)}
    return gone


def delete_tar(dataset: DatasetPaths, part: str) -> None:
    """Remove a part's tar, here and in the store; the rest stays, so nothing is fetched again."""
    tar = PartFiles(dataset, part).tar
    tar.unlink(missing_ok=True)
    if dataset.store:
        store_of(dataset).remove(store_path(dataset, tar))


@contextmanager
def editable_tar(dataset: DatasetPaths, part: str) -> Iterator[PartFiles | None]:
    """Provide the tar of a complete part on this machine, to be changed; None if it does not exist.

    A tar in the store is downloaded, and uploaded when the block ends.
    """
    files = PartFiles(dataset, part)
    if not dataset.store:
        yield files if files.tar.exists() else None
        return
    store = store_of(dataset)
    try:
        if not files.tar.exists():
            store.download(store_path(dataset, files.tar), files.tar)
    except FileNotFoundError:
        yield None
        return
    yield files
    upload_part(dataset, files.without_summary(), files.summary, files.summary.read_bytes())
    files.tar.unlink()

"""The originals on disk: parts of about 1000 images, each a tar, its journal and its record.

The journal is the truth. An image counts once its line is there; what the tar holds beyond that
is cut off by the next run. A part is complete when its record exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.contract import (
    Dataset,
    JsonlAppender,
    ManifestRow,
    OriginalRecord,
    UserError,
    now_utc,
    read_jsonl,
    write_atomic,
    write_json,
)
from pipeline.dataset.part_lock import PartLock
from pipeline.dataset.tars import tar_header
from pipeline.errors import Failure

PART_SIZE = 1000
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_RECORD_FIELDS = tuple(OriginalRecord.__dataclass_fields__)


@dataclass(frozen=True)
class PartFiles:
    """The files of one part."""

    dataset: Dataset
    part: str

    def _file(self, ending: str) -> Path:
        return self.dataset.originals / f"{self.part}.{ending}"

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
    def record(self) -> Path:
        return self._file("json")

    @property
    def lock(self) -> Path:
        """There while a process works on the part (see `part_lock.PartLock`)."""
        return self._file("lock")

    def rows(self) -> Iterator[ManifestRow]:
        """The manifest rows of the part."""
        return (ManifestRow.from_json(row) for row in read_jsonl(self.plan))


def part_name(dataset: Dataset, number: int) -> str:
    return f"{dataset.name}-{number:06d}"


def planned_parts(dataset: Dataset) -> list[str]:
    """The names of all parts that were planned, in order."""
    pattern = re.compile(re.escape(dataset.name) + r"-(\d{6,})\.plan\.jsonl")
    if not dataset.originals.is_dir():
        return []
    numbers = [
        int(match[1])
        for path in dataset.originals.iterdir()
        if (match := pattern.fullmatch(path.name))
    ]
    return [part_name(dataset, number) for number in sorted(numbers)]


def next_part(dataset: Dataset) -> str:
    """The name of the next part to plan."""
    parts = planned_parts(dataset)
    return part_name(dataset, int(parts[-1].rpartition("-")[2]) + 1 if parts else 0)


def write_plan(dataset: Dataset, part: str, rows: list[dict[str, Any]]) -> None:
    """Plan a part: its manifest rows, so that it can be worked on from this file alone."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(PartFiles(dataset, part).plan, text)


def is_complete(dataset: Dataset, part: str) -> bool:
    return PartFiles(dataset, part).record.exists()


def read_journal(dataset: Dataset, part: str) -> Iterator[dict[str, Any]]:
    """The lines of a part's journal: `ok` true with an `OriginalRecord`, or false with a kind."""
    return read_jsonl(PartFiles(dataset, part).journal)


def read_records(dataset: Dataset) -> Iterator[OriginalRecord]:
    """The good images of the complete parts."""
    for part in planned_parts(dataset):
        if is_complete(dataset, part):
            for row in read_journal(dataset, part):
                if row["ok"]:
                    yield OriginalRecord(**{name: row[name] for name in _RECORD_FIELDS})


def read_original(dataset: Dataset, record: OriginalRecord) -> bytes:
    """The bytes of one image, by one seek.

    Raises:
        UserError: the tar is gone or shorter than the record says.
    """
    path = PartFiles(dataset, record.part).tar
    try:
        with path.open("rb") as file:
            file.seek(record.offset)
            data = file.read(record.bytes)
    except OSError as error:
        raise UserError(f"{path}: {record.member}: {error.strerror}") from None
    if len(data) != record.bytes:
        raise UserError(f"{path}: {record.member}: cut off")
    return data


def tar_member(name: str, data: bytes) -> bytes:
    """One member of a tar, header and padding with it; the same bytes for the same member."""
    return b"".join((tar_header(name, len(data)), data, bytes(-len(data) % _BLOCK)))


class PartWriter:
    """Writes one part, going on from where a killed run left it.

    `done` holds the keys that the journal has, good or failed. The part is held until `close`.

    Raises:
        PartHeld: another process works on the part.
    """

    def __init__(self, dataset: Dataset, part: str) -> None:
        self.part = part
        self.files = PartFiles(dataset, part)
        self.nsamples = 0
        self.bytes = 0
        self.failed: Counter[str] = Counter()
        self.done: set[str] = set()
        self._hash = hashlib.sha256()
        self._end = 0
        self._lock = PartLock(self.files.lock)
        try:
            self._recover()
            self._tar = self.files.tar.open("r+b", buffering=0)
            self._tar.truncate(self._end)
            self._tar.seek(self._end)
            self._journal = JsonlAppender(self.files.journal)
        except BaseException:
            self._lock.release()
            raise

    def _recover(self) -> None:
        """Find what the journal vouches for, check it against the tar, forget the rest."""
        rows = list(read_jsonl(self.files.journal))
        kept = []
        sound = True
        self.files.tar.touch()
        with self.files.tar.open("rb") as tar:
            for row in rows:
                if row["key"] in self.done:
                    continue
                if row["ok"]:
                    # Only a power cut can leave a journal that knows more than the tar.
                    sound = sound and self._vouched(tar, row)
                    if not sound:
                        continue
                    self.nsamples += 1
                    self.bytes += row["bytes"]
                else:
                    self.failed[row["kind"]] += 1
                self.done.add(row["key"])
                kept.append(row)
        if len(kept) < len(rows):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            write_atomic(self.files.journal, text)

    def _vouched(self, tar: IO[bytes], row: dict[str, Any]) -> bool:
        if row["offset"] != self._end + _BLOCK:
            return False
        tar.seek(self._end)
        block = tar.read(row["end"] - self._end)
        data = block[_BLOCK : _BLOCK + row["bytes"]]
        if len(block) != row["end"] - self._end:
            return False
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            return False
        self._hash.update(block)
        self._end = row["end"]
        return True

    def add(self, row: ManifestRow, name: str, data: bytes, facts: dict[str, Any],
            sidecar: dict[str, Any]) -> OriginalRecord:  # fmt: skip
        """Add an image under its key with the ending `name`, and its JSON beside it."""
        sha256 = hashlib.sha256(data).hexdigest()
        record = OriginalRecord(
            key=row.key, part=self.part, member=f"{row.key}.{name}", offset=self._end + _BLOCK,
            bytes=len(data), sha256=sha256, **facts,
        )  # fmt: skip
        beside = {**row.to_json(), **sidecar, "bytes": len(data), "sha256": sha256}
        text = json.dumps(beside, ensure_ascii=False, sort_keys=True).encode()
        block = tar_member(record.member, data) + tar_member(f"{row.key}.json", text)
        self._write(block)
        self._journal.append({"ok": True, "ts": now_utc(), **vars(record), "end": self._end})
        self.done.add(row.key)
        self.nsamples += 1
        self.bytes += len(data)
        return record

    def fail(self, key: str, failure: Failure) -> None:
        """Note that an image could not be had."""
        self._journal.append(
            {"ok": False, "ts": now_utc(), "key": key, "url": failure.url, "kind": failure.kind,
             "status": failure.status, "attempts": failure.attempts}
        )  # fmt: skip
        self.done.add(key)
        self.failed[failure.kind] += 1

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[self._tar.write(view) or 0 :]
        self._hash.update(block)
        self._end += len(block)

    def finish(self) -> None:
        """End the tar, make everything durable, and write the record that says so."""
        self._write(_END)
        os.fsync(self._tar.fileno())
        self._journal.sync()
        write_json(
            self.files.record,
            {
                "part": self.part, "nsamples": self.nsamples, "bytes": self._end,
                "sha256": self._hash.hexdigest(), "image_bytes": self.bytes,
                "failed": dict(self.failed), "finished": now_utc(),
            },
        )  # fmt: skip
        self.close()

    def close(self) -> None:
        """Let go of the files; the part goes on from here another time."""
        self._tar.close()
        self._journal.close()
        self._lock.release()

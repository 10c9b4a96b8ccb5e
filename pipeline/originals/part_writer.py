"""Writes one part: images into its tar, one line per image into its journal, its summary last.

An image counts once its line is written. The next run keeps complete images in the tar whose line
is missing, and truncates the tar after them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import Counter
from itertools import islice
from typing import IO, Any

from pipeline.atomic_io import json_text
from pipeline.contract import (
    DatasetPaths,
    JsonlAppender,
    ManifestRow,
    OriginalRecord,
    now_utc,
    write_atomic,
)
from pipeline.contract.tar import BLOCK, members
from pipeline.contract.tar_writer import tar_header
from pipeline.errors import Failure
from pipeline.forgotten import read_forgotten
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.properties import measure_image
from pipeline.options import OriginalsOptions
from pipeline.originals.inspect_image import DECODE_SIDE
from pipeline.originals.parts import PartFiles, journal_line, lock_part
from pipeline.outside_text import parse_json
from pipeline.remote.store import upload_part
from pipeline.web.politeness import Politeness

_END = bytes(2 * BLOCK)

_MAX_SIDECAR = 1 << 20
_LIMITS = ImageLimits(Politeness().max_pixels, OriginalsOptions().max_side)


def tar_member(name: str, data: bytes) -> bytes:
    """Return one member of a tar with header and padding; equal members have equal bytes."""
    return b"".join((tar_header(name, len(data)), data, bytes(-len(data) % BLOCK)))


def _read_lines(files: PartFiles) -> tuple[list[dict[str, Any]], bool]:
    """Return the valid lines of a journal, and whether all lines are valid."""
    rows: list[dict[str, Any]] = []
    all_valid = True
    if files.journal.exists():
        for line in files.journal.read_bytes().splitlines():
            try:
                rows.append(journal_line(files.part, json.loads(line)))
            except (ValueError, AttributeError, RecursionError):
                all_valid = False
    return rows, all_valid


class PartWriter:
    """Writes one part and continues where a killed run stopped.

    `done` holds the keys in the journal, downloaded or failed. The part is locked until `close`.

    Raises:
        PartLocked: another process works on the part.
    """

    def __init__(self, dataset: DatasetPaths, part: str) -> None:
        self.part = part
        self.files = PartFiles(dataset, part)
        self.nsamples = 0
        self.bytes = 0
        self.failed: Counter[str] = Counter()
        self.done: set[str] = set()
        self._hash = hashlib.sha256()
        self._end = 0
        self._forgotten: frozenset[str] | None = None
        self._lock = lock_part(self.files.lock)
        try:
            self._recover()
            self._tar = self.files.tar.open("r+b", buffering=0)
            self._tar.truncate(self._end)
            self._tar.seek(self._end)
            self._journal = JsonlAppender(self.files.journal)
        except BaseException:
            self._lock.release(remove=True)
            raise

    def _recover(self) -> None:
        """Keep the failures and the images that the tar confirms, and truncate the tar after them.
        Images whose line was lost are measured again."""
        rows, all_valid = _read_lines(self.files)
        starts = {row["offset"] - BLOCK: row for row in rows if row["ok"]}
        kept = []
        self.files.tar.touch()
        with self.files.tar.open("rb") as tar:
            while row := self._image_at_end(tar, starts):
                self.nsamples += 1
                self.bytes += row["bytes"]
                self.done.add(row["key"])
                kept.append(row)
        for row in rows:
            if not row["ok"] and row["key"] not in self.done:
                self.failed[row["kind"]] += 1
                self.done.add(row["key"])
                kept.append(row)
        if not all_valid or set(map(id, kept)) != set(map(id, rows)):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            write_atomic(self.files.journal, text.encode(errors="replace"))

    def _image_at_end(
        self, tar: IO[bytes], starts: dict[int, dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return the line of the next image in the tar, and advance past it; None if there is
        none."""
        start = self._end
        row = starts.get(start)
        if row is not None and row["key"] not in self.done and self._matches_tar(tar, row):
            return row
        row = read_lost_line(self.part, tar, start)
        if row is not None and row["key"] not in self.done and self._matches_tar(tar, row):
            return row
        return None

    def _matches_tar(self, tar: IO[bytes], row: dict[str, Any]) -> bool:
        first, size = self._end + BLOCK, os.fstat(tar.fileno()).st_size
        if row["offset"] != first or not first + row["bytes"] <= row["end"] <= size:
            return False
        tar.seek(self._end)
        block = tar.read(row["end"] - self._end)
        data = block[BLOCK : BLOCK + row["bytes"]]
        if len(block) != row["end"] - self._end:
            return False
        if hashlib.sha256(data).hexdigest() != row["sha256"] and not self._is_erased(row, data):
            return False
        self._hash.update(block)
        self._end = row["end"]
        return True

    def _is_erased(self, row: dict[str, Any], data: bytes) -> bool:
        """Return True if `forget` has erased the image."""
        if any(data):
            return False
        if self._forgotten is None:
            self._forgotten = read_forgotten(self.files.dataset).keys
        return row["key"] in self._forgotten

    def add(self, row: ManifestRow, extension: str, data: bytes, properties: dict[str, Any],
            sidecar: dict[str, Any]) -> OriginalRecord:  # fmt: skip
        """Add an image as KEY.`extension`, and its JSON beside it.

        Raises:
            OSError: it cannot be written; the part must be closed.
            Exception: the image is invalid; nothing was written.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        record = OriginalRecord(
            key=row.key, part=self.part, member=f"{row.key}.{extension}",
            offset=self._end + BLOCK, bytes=len(data), sha256=sha256,
            opt_out=sidecar.get("opt_out"), **properties,
        )  # fmt: skip
        beside = {**row.to_json(), **sidecar, "bytes": len(data), "sha256": sha256}
        text = json.dumps(beside, ensure_ascii=False, sort_keys=True).encode(errors="replace")
        block = tar_member(record.member, data) + tar_member(f"{row.key}.json", text)
        line = {"ok": True, "ts": now_utc(), **record.to_json(), "end": self._end + len(block)}
        json.dumps(line)  # raises before anything is written
        self._write(block)
        self._journal.append(line)
        self.done.add(row.key)
        self.nsamples += 1
        self.bytes += len(data)
        return record

    def add_failure(self, key: str, failure: Failure) -> None:
        """Record that an image could not be downloaded."""
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
        """End the tar, sync the files to the disk, and write the summary.

        With a store, all files are uploaded before the local summary is written, and the local tar
        is removed afterwards.

        Raises:
            StoreError: the store does not respond; the next run continues.
        """
        self._write(_END)
        os.fsync(self._tar.fileno())
        self._journal.sync()
        summary = json_text(
            {
                "part": self.part, "nsamples": self.nsamples, "bytes": self._end,
                "sha256": self._hash.hexdigest(), "image_bytes": self.bytes,
                "failed": dict(self.failed), "finished": now_utc(),
            }
        ).encode()  # fmt: skip
        stored = self.files.dataset.store
        if stored:
            files = self.files.without_summary()
            upload_part(self.files.dataset, files, self.files.summary, summary)
        write_atomic(self.files.summary, summary)
        if stored:
            self.files.tar.unlink()
        self.close()

    def close(self) -> None:
        """Close the files and release the lock. Another run can continue the part."""
        self._tar.close()
        self._journal.close()
        self._lock.release(remove=True)


def read_lost_line(part: str, tar: IO[bytes], start: int) -> dict[str, Any] | None:
    """Measure the image at `start` in the tar again and return its journal line.

    Returns:
        The line; None if no image with its JSON is there, or the JSON has another sha256.
    """

    def pread(size: int, offset: int) -> bytes:
        return os.pread(tar.fileno(), size, start + offset)

    try:
        rest = os.fstat(tar.fileno()).st_size - start
        (name, image), (beside, text) = islice(members(pread, rest), 2)
        if image.size > Politeness().max_bytes or text.size > _MAX_SIDECAR:
            return None
        data = pread(image.size, image.offset)
        sidecar = parse_json(pread(text.size, text.offset))
        key, digest = sidecar["key"], hashlib.sha256(data).hexdigest()
        if sidecar["sha256"] != digest or beside != f"{key}.json" or not name.startswith(f"{key}."):
            return None
        with decoded(data, _LIMITS, DECODE_SIDE) as opened:
            properties = measure_image(opened).recorded()
        record = OriginalRecord(
            key=key, part=part, member=name, offset=start + image.offset, bytes=len(data),
            sha256=digest, opt_out=sidecar.get("opt_out"), **properties,
        )  # fmt: skip
        end = start + text.offset + text.size + -text.size % BLOCK
        line = {"ok": True, "ts": now_utc(), **record.to_json(), "end": end}
        return journal_line(part, line)
    except (tarfile.TarError, ImageError, ValueError, KeyError, TypeError):
        return None

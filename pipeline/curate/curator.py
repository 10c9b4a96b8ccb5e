"""Answers the page: images, thumbnails, details, similar images; records decisions."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord
from pipeline.curate.image_table import KEPT, ImageTable
from pipeline.curate.thumbnails import scaled_image, thumbnails_path
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import PartFiles, read_part
from pipeline.select.curation import KEEP, REJECT, UNDO, Decision, read_curation, record_decisions
from pipeline.select.rules import PERMANENT, REASONS

PICTURE_SIDE = 1280
_STATES = {UNDO: 0, KEEP: 1, REJECT: 2}
_ALIGNMENT = 8


class Curator:
    """The images of a dataset, and the decisions about them. Safe to use from several threads."""

    def __init__(self, table: ImageTable, dataset: DatasetPaths) -> None:
        self._table, self._dataset = table, dataset
        self._lock = threading.Lock()
        self.recorded = 0
        decided = read_curation(dataset).by_key
        self._states = np.zeros(len(table), np.uint8)
        for index, key in enumerate(table.keys.tolist()):
            if (one := decided.get(f"{key:016x}")) is not None:
                self._states[index] = _STATES[one.decision]

    def __len__(self) -> int:
        return len(self._table)

    def images(self) -> bytes:
        """Return all columns: the length of a JSON header (uint32), the header, and the columns
        that it describes, little-endian, each at a multiple of 8 bytes."""
        columns = {**self._table.columns, "state": self._states}
        places: dict[str, Any] = {}
        parts: list[bytes] = []
        at = 0
        for name, column in columns.items():
            data = np.ascontiguousarray(column).tobytes()
            places[name] = {"type": column.dtype.name, "at": at}
            data += bytes(-len(data) % _ALIGNMENT)
            parts.append(data)
            at += len(data)
        header = json.dumps({
            "name": self._dataset.name, "count": len(self), "columns": places,
            "words": self._table.words, "reasons": REASONS, "kept": KEPT, "part": self._table.parts,
            "permanent": [REASONS.index(reason) for reason in sorted(PERMANENT)],
            "notes": self._table.notes,
        }).encode()  # fmt: skip
        header += b" " * (-(4 + len(header)) % _ALIGNMENT)
        return b"".join((struct.pack("<I", len(header)), header, *parts))

    def states(self) -> bytes:
        """Return the decision about each image, uint8 (n,): 0 none, 1 keep, 2 reject."""
        return self._states.tobytes()

    def thumbnails(self, indices: NDArray[np.uint32]) -> bytes:
        """Return thumbnails as JPEGs in base64, one per line; the line is empty if there is none.

        (In the browser, object URLs of binary data would cost ten times as much as data URLs.)
        """
        table = self._table
        found = [b""] * len(indices)
        order = np.lexsort((table.begin[indices], table.part[indices]))
        for part in np.unique(table.part[indices]):
            try:
                with thumbnails_path(self._dataset, table.parts[part]).open("rb") as file:
                    for place in order[table.part[indices[order]] == part]:
                        index = indices[place]
                        file.seek(table.begin[index])
                        found[place] = file.read(int(table.end[index] - table.begin[index]))
            except FileNotFoundError:
                continue  # an image of the part was forgotten meanwhile
        return b"\n".join(map(base64.b64encode, found))

    def details(self, index: int) -> dict[str, Any]:
        """Return what is known about an image, as JSON values."""
        key = self._table.key(index)
        record, row = self._find(index)
        return {
            "key": key, "url": row.url, "page": row.page, "title": row.title,
            "labels": list(row.labels), "license": row.license, "attribution": row.attribution,
            "format": record.format, "bytes": record.bytes,
            "detail": self._table.details.get(int(key, 16), ""),
        }  # fmt: skip

    def picture(self, index: int) -> bytes:
        """Return an image as a JPEG of at most `PICTURE_SIDE` pixels.

        Raises:
            UserError: the original is gone or damaged.
            ImageError: it cannot be decoded.
        """
        record, _ = self._find(index)
        image = scaled_image(record, read_original(self._dataset, record), PICTURE_SIDE)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        return file.getvalue()

    def _find(self, index: int) -> tuple[OriginalRecord, ManifestRow]:
        key, part = self._table.key(index), self._table.parts[self._table.part[index]]
        record = next(one for one in read_part(self._dataset, part) if one.key == key)
        rows = PartFiles(self._dataset, part).rows()
        return record, next((row for row in rows if row.key == key), ManifestRow(key, ""))

    def similar(self, index: int) -> bytes:
        """Return the similarity of all images to one, float32 (n,), from -1 to 1."""
        features = self._table.features
        return np.asarray(features @ features[index], "<f4").tobytes()

    def decide(self, decisions: Mapping[str, Sequence[int]], reason: str) -> None:
        """Record decisions, and return when they are on the disk.

        Args:
            decisions: indices of images, by decision.

        Raises:
            OSError: they could not be written; then none is recorded.
        """
        with self._lock:
            rows = [
                Decision(self._table.key(index), name, reason)
                for name, indices in decisions.items()
                for index in indices
            ]
            record_decisions(self._dataset, rows)
            for name, indices in decisions.items():
                self._states[np.asarray(indices, np.int64)] = _STATES[name]
            self.recorded += len(rows)

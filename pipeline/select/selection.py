"""An image of the selection: its recorded properties and its row of the URL manifest, on one
line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import ManifestRow, OriginalRecord, read_rows

NO_IMAGES = "no images yet; run download, or import to add images that you have"

_ADVICE = "run select, which writes it again"


@dataclass(frozen=True)
class SelectedImage:
    """All that sharding needs to know about an image; it reads no other metadata."""

    record: OriginalRecord
    row: ManifestRow

    @property
    def key(self) -> str:
        return self.record.key

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> SelectedImage:
        return cls(OriginalRecord.from_json(line), ManifestRow.from_json(line))

    def to_json(self) -> dict[str, Any]:
        line = {**self.row.to_json(), **self.record.to_json()}
        if self.record.opt_out is None:
            del line["opt_out"]
        return line

    def to_line(self) -> bytes:
        return (json.dumps(self.to_json(), ensure_ascii=False) + "\n").encode(errors="replace")


def read_selection(path: Path) -> Iterator[SelectedImage]:
    """Yield the images of a selection, in order.

    Raises:
        UserError: a line is not what `select` writes.
    """
    yield from read_rows(path, SelectedImage.from_json, _ADVICE)


def read_rejected(path: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a list of rejected images: `key`, `url`, `part`, `reason` and `detail`.

    Raises:
        UserError: a line is not what `select` writes.
    """
    return read_rows(path, _rejected_line, _ADVICE)


def _rejected_line(row: dict[str, Any]) -> dict[str, str]:
    wrong = [name for name in ("key", "part", "reason", "detail")
             if not isinstance(row.get(name), str)]  # fmt: skip
    if wrong:
        raise ValueError(f"{wrong[0]}: missing")
    return row

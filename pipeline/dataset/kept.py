"""An image of the kept list: its recorded facts and its row of the URL manifest, on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import ManifestRow, OriginalRecord, read_rows


@dataclass(frozen=True)
class KeptImage:
    """All that sharding needs to know of an image: no other file is asked again."""

    record: OriginalRecord
    row: ManifestRow

    @property
    def key(self) -> str:
        return self.record.key

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> KeptImage:
        return cls(OriginalRecord.from_json(line), ManifestRow.from_json(line))

    def to_json(self) -> dict[str, Any]:
        line = {**self.row.to_json(), **vars(self.record)}
        if self.record.opt_out is None:
            del line["opt_out"]
        return line

    def to_line(self) -> bytes:
        return (json.dumps(self.to_json(), ensure_ascii=False) + "\n").encode()


def read_kept(path: Path) -> Iterator[KeptImage]:
    """The images of a kept list, in order.

    Raises:
        UserError: a line is not what select writes.
    """
    yield from read_rows(path, KeptImage.from_json)

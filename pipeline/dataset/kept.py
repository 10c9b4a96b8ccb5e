"""An image of the kept list: its recorded facts and its row of the URL manifest, on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.contract import ManifestRow, OriginalRecord, UserError, read_jsonl

_RECORD = tuple(field.name for field in fields(OriginalRecord))


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
        record = OriginalRecord(**{name: line[name] for name in _RECORD if name in line})
        return cls(record, ManifestRow.from_json(line))

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
    for number, line in enumerate(read_jsonl(path), start=1):
        try:
            yield KeptImage.from_json(line)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not an image of a kept list ({error})") from None

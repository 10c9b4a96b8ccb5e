"""What a run records as it goes: `metrics.jsonl` and TensorBoard's events.

The history travels in the checkpoint too: a continued run starts from exactly the rows that its
checkpoint had seen, so no row is there twice and none comes from steps that were lost.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from pipeline.contract import JsonlAppender, write_atomic

Row = dict[str, Any]


class History:
    """The rows of a run, in memory, in `metrics.jsonl` and as TensorBoard events.

    Args:
        folder: the run's.
        text: the JSONL text a checkpoint carried; it replaces what the file holds.
    """

    def __init__(self, folder: Path, text: str = "") -> None:
        write_atomic(folder / "metrics.jsonl", text)
        self.rows: list[Row] = [json.loads(line) for line in text.splitlines()]
        self._file = JsonlAppender(folder / "metrics.jsonl")
        seen = self.rows[-1]["seen"] if self.rows else 0
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=seen + 1)

    def add(self, row: Row) -> None:
        """Record a row; `seen` is its position, numbers become TensorBoard scalars."""
        self.rows.append(row)
        self._file.append(row)
        for name, value in row.items():
            if name != "seen" and isinstance(value, int | float):
                self._board.add_scalar(name, value, row["seen"])

    def text(self) -> str:
        """All rows as JSONL."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)

    def close(self) -> None:
        self._file.close()
        self._board.close()

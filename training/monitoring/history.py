"""The history of a run: `metrics.jsonl` and TensorBoard's events.

The history is part of the checkpoint: a resumed run starts with exactly the rows of its checkpoint,
so no row is duplicated and none comes from lost steps.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from pipeline.contract import (
    JsonlAppender,
    UserError,
    describe_os_error,
    read_jsonl,
    write_atomic,
)
from training.monitoring.event_file import EventFile

Row = dict[str, Any]


def is_finite_number(value: object) -> bool:
    """Return True for what a row can hold: a finite integer or float."""
    return isinstance(value, int | float) and math.isfinite(value)


class History:
    """The rows of a run, in memory, in `metrics.jsonl` and as TensorBoard events.

    Args:
        folder: the run's; None keeps the rows only in memory.
        text: the JSONL text of a checkpoint; it replaces the content of the file.
    """

    def __init__(self, folder: Path | None, text: str = "") -> None:
        self._folder = folder
        self._file: JsonlAppender | None = None
        self._board: EventFile | None = None
        self.reset(text)

    def load(self, text: str) -> None:
        """Replace the rows in memory by those of the JSONL `text`."""
        self._lines = text.splitlines()
        self.rows: list[Row] = [json.loads(line) for line in self._lines]

    def reset(self, text: str) -> None:
        """Replace the rows by those of `text`; later rows, lost in a rollback, are dropped."""
        self.close()
        self.load(text)
        if self._folder is None:
            return
        write_atomic(self._folder / "metrics.jsonl", text)
        self._file = JsonlAppender(self._folder / "metrics.jsonl")
        seen = self.rows[-1]["seen"] if self.rows else 0
        self._board = EventFile(self._folder / "tensorboard", seen + 1)

    def add(self, row: Row) -> None:
        """Append a row; `seen` is its position, numbers become TensorBoard scalars."""
        self.rows.append(row)
        self._lines.append(json.dumps(row, ensure_ascii=False))
        if self._file is None or self._board is None:
            return
        self._file.append(row)
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "seen" and isinstance(value, int | float)
        }
        self._board.add(numbers, row["seen"])

    def text(self) -> str:
        """Return all rows as JSONL."""
        return "".join(f"{line}\n" for line in self._lines)

    def close(self) -> None:
        for file in (self._file, self._board):
            if file is not None:
                file.close()
        self._file = self._board = None


def read_history(path: Path) -> list[Row]:
    """Return the rows of a run's `metrics.jsonl`; empty if the file does not exist or, with a
    warning on standard error, if it cannot be read: a result must not depend on it."""
    try:
        rows = list(read_jsonl(path))
    except OSError as error:
        problem = describe_os_error(error)
    except UserError as error:
        problem = str(error)
    else:
        if all(type(row.get("seen")) is int and 0 <= row["seen"] <= 2**53 for row in rows):
            return rows
        problem = f"{path}: a row without `seen`, the number of images"
    print(f"warning: {problem}; continuing without the history", file=sys.stderr)
    return []

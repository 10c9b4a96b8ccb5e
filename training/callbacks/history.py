"""A row of metrics.jsonl per `record.log_kimg`, evaluation or change of threads."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from training.callbacks.base import Callback, Diverged
from training.config import crossed
from training.monitoring.history import Row, is_finite_number

if TYPE_CHECKING:
    from training.loop import Loop


class HistoryCallback(Callback):
    """Averages the stats of the steps into rows: the only place where losses leave the device."""

    row: Row | None = None
    """The row of this step, if one was due."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._left_out = set[str]()

    def on_timers_reset(self) -> None:
        self._since = (time.monotonic(), self.loop.state.seen)

    def after_step(self) -> None:
        loop, self.row = self.loop, None
        due = crossed(loop.seen_before, loop.state.seen, loop.config.record.log_kimg)
        if not (due or loop.evaluation.is_due or loop.threads.change):
            return
        loop.merge_meter()
        row = self._make_row()
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(name)
        for callback in loop.callbacks:
            callback.on_row(row)
        self._leave_out_unusable(row)
        loop.on_main_process(lambda: loop.history.add(row))
        self.row = row

    def _leave_out_unusable(self, row: Row) -> None:
        """Remove what a callback added but no checkpoint can hold, with one warning each."""
        for name in [name for name, value in row.items() if not is_finite_number(value)]:
            value = row.pop(name)
            if name not in self._left_out:
                self._left_out.add(name)
                self.loop.display.message(
                    f"warning: {name} is left out of the history: {value!r:.60} is not a finite "
                    "number"
                )

    def _make_row(self) -> Row:
        now, seen = time.monotonic(), self.loop.state.seen
        seconds, images = now - self._since[0], seen - self._since[1]
        self._since = (now, seen)
        return {
            "seen": seen,
            **self.loop.meter.means(),
            "images_per_second": round(images / max(seconds, 1e-9), 3),
            **({"threads": torch.get_num_threads()} if self.loop.threads.live else {}),
        }

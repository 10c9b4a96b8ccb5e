"""Metrics of the EMA generator per `evaluate.kimg`, within `record.time_share`, and the best
checkpoint by them."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from training import best_checkpoint, checkpoint
from training.callbacks.base import Cadence, Callback
from training.evaluation.evaluator import Evaluator, prepare_or_warn
from training.monitoring.history import Row

if TYPE_CHECKING:
    from training.loop import Loop


class EvaluationCallback(Callback):
    """Adds metrics to the rows of the history and keeps the best checkpoint."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.evaluator = Evaluator(loop.config, loop.source, loop.device, loop.ranks)
        self._cadence = Cadence(loop, "evaluation", loop.config.evaluate.kimg)

    def on_start(self) -> None:
        rows, seen = self.loop.history.rows, self.loop.state.seen
        self._cadence.is_owed = self.evaluator.is_due(rows, seen)
        if self.loop.ranks.is_main:
            prepare_or_warn(self._prepare, self.loop.display.message)

    def _prepare(self) -> None:
        loop = self.loop
        self.evaluator.prepare(
            loop.history.rows, loop.total, loop.display.message,
            lambda: loop.stop_signal.requested,
        )  # fmt: skip
        row = loop.history.rows[-1] if loop.history.rows else {}
        kept = best_checkpoint.best(loop.run_files.checkpoints)
        if (
            row.get("seen") == loop.state.seen
            and self.evaluator.limit is not None
            and (kept is None or kept.criterion == self.evaluator.criterion)
            and self._is_best(row)
        ):  # a kill came between saving and keeping
            loop.on_main_process(lambda: self._warn_unless(self._keep(row, loop.state.seen)))
        loop.reset_timers()

    @property
    def is_due(self) -> bool:
        """True if this step ends with an evaluation."""
        return self._cadence.is_due

    def after_step(self) -> None:
        if not self.is_due:
            return
        loop, row = self.loop, self.loop.log.row or {}
        loop.on_main_process(lambda: loop.writer.finish("best"))
        if not loop.ranks.broadcast(self._is_best(row)):
            return
        loop.checkpoints.save_finite()
        keep = partial(self._keep, row, loop.state.seen)  # the thread has written it by then
        loop.on_main_process(lambda: loop.writer.submit("best", keep, self._warn_unless))

    def on_row(self, row: Row) -> None:
        loop = self.loop
        if not self.is_due or not loop.ranks.is_main or not loop.state.is_finite():
            return
        start = time.monotonic()
        with self._cadence.timed():
            found = self.evaluator.evaluate(loop.state.g_ema.eval())
        if found:
            loop.display.message(
                f"evaluation at {loop.state.seen / 1000:g} kimg: "
                f"{self.evaluator.format_summary(found)} ({time.monotonic() - start:.0f} s)"
            )
        loop.log.on_timers_reset()
        row |= found

    def _is_best(self, row: Row) -> bool:
        value, folder = row.get(self.evaluator.metric), self.loop.run_files.checkpoints
        return value is not None and best_checkpoint.is_best(
            folder, self.evaluator.criterion, value
        )

    def _keep(self, row: Row, seen: int) -> bool:
        """Keep the checkpoint at `seen` as the best; False if the disk has no room."""
        folder, value = self.loop.run_files.checkpoints, row[self.evaluator.metric]
        if all(saved.seen != seen for saved in checkpoint.list_checkpoints(folder)):
            return True  # the disk was full; that ends the run
        return best_checkpoint.keep_best(folder, seen, self.evaluator.criterion, value)

    def _warn_unless(self, is_kept: bool) -> None:
        if not is_kept:
            self.loop.display.message("warning: the disk has no room to keep the best checkpoint")

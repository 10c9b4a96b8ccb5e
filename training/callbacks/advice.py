"""Says what to expect of a run of `--preset auto`, and at its end what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.contract import UserError
from training.callbacks.base import Callback, EndReason
from training.monitoring.history import Row
from training.options.architectures import features_kimg
from training.planning.advice import (
    Progress,
    conclusion,
    expectation,
    recent_mean,
)
from training.planning.auto import NAME
from training.planning.forecast import plan_course
from training.planning.inputs import plain_fraction

if TYPE_CHECKING:
    from training.loop import Loop

_TENTH = 0.1


class AdviceCallback(Callback):
    """Prints a line after a tenth of a command's time or images, and a paragraph at the end."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._is_active = loop.config.preset == NAME and loop.ranks.is_main
        self._is_due = True
        self._plain = self._started = 0.0
        self._first = 0

    def on_start(self) -> None:
        self._started, self._first = self.loop.seconds, self.loop.state.seen
        if self._is_active:  # read now: later, shards at a URL may be out of reach
            try:
                self._plain = plain_fraction(self.loop.source, self.loop.config.data)
            except UserError as error:
                self._is_active = False
                self.loop.display.message(f"warning: no advice at the end of this run: {error}")

    def after_step(self) -> None:
        if not (self._is_active and self._is_due):
            return
        made = self.loop.state.seen - self._first
        share = made / max(1.0, self._end * 1000 - self._first)
        # an evaluation comes with a row, and later than a tenth on a slow machine
        evaluated = share >= _TENTH and self.loop.log.row and "fd" in self._newest
        if evaluated or share >= 2 * _TENTH:
            self._is_due = False
            self.loop.display.message(expectation(self._progress()))

    @property
    def _end(self) -> float:
        """The thousand images after which the run ends, at this command's mean speed."""
        loop, seen = self.loop, self.loop.state.seen
        speed = (loop.seconds - self._started) / max(1, seen - self._first) * 1000
        left = (loop.total - seen) / 1000
        course = plan_course(speed, left, loop.config.max_hours, loop.seconds, 0.0)
        return seen / 1000 + course.kimg

    @property
    def _newest(self) -> Row:
        return self.loop.evaluation.evaluator.newest(self.loop.history.rows)

    def on_end(self, reason: EndReason) -> None:
        if self._is_active and reason in (EndReason.DONE, EndReason.HOURS):
            self.loop.display.message(conclusion(self._progress()))

    def _progress(self) -> Progress:
        loop, newest, rows = self.loop, self._newest, self.loop.history.rows
        return Progress(
            loop.state.seen / 1000,
            self._end,
            loop.source.index.nsamples,
            self._plain,
            newest.get("fd"),
            loop.evaluation.evaluator.limit,
            newest.get("seen", 0) / 1000,
            newest.get("recall", 0.0),
            newest.get("copies", 0.0),
            recent_mean(rows, "spread_fake", "spread_real"),
            recent_mean(rows, "r_t"),
            loop.config.generator.name == "dcgan",
            features_kimg(loop.config.discriminator),
        )

"""Says what to expect of a run of `--preset auto`, and at its end what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.contract import UserError
from training.callbacks.base import Callback, EndReason
from training.options.architectures import features_kimg
from training.planning.advice import (
    Progress,
    conclusion,
    expectation,
    planned_kimg,
    recent_mean,
)  # fmt: skip
from training.planning.auto import NAME
from training.planning.inputs import plain_fraction

if TYPE_CHECKING:
    from training.loop import Loop

_TENTH = 0.1


class AdviceCallback(Callback):
    """Prints a line after a tenth of the planned images, and a paragraph at the end."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._planned = planned_kimg(loop.config)
        self._is_active = loop.config.preset == NAME and loop.ranks.is_main
        self._is_due = False
        self._plain = 0.0

    def on_start(self) -> None:
        self._is_due = self.loop.state.seen < _TENTH * self._planned * 1000
        if self._is_active:  # read now: later, shards at a URL may be out of reach
            try:
                self._plain = plain_fraction(self.loop.source, self.loop.config.data)
            except UserError as error:
                self._is_active = False
                self.loop.display.message(f"warning: no advice at the end of this run: {error}")

    def after_step(self) -> None:
        if not (self._is_active and self._is_due):
            return
        seen, tenth = self.loop.state.seen, _TENTH * self._planned * 1000
        # the evaluation of this tenth comes with the next row
        if seen >= tenth and (self.loop.log.row or seen >= 2 * tenth):
            self._is_due = False
            self.loop.display.message(expectation(self._progress()))

    def on_end(self, reason: EndReason) -> None:
        if self._is_active and reason in (EndReason.DONE, EndReason.HOURS):
            self.loop.display.message(conclusion(self._progress()))

    def _progress(self) -> Progress:
        loop, evaluator = self.loop, self.loop.evaluation.evaluator
        rows = loop.history.rows
        newest = evaluator.newest(rows)
        return Progress(
            loop.state.seen / 1000,
            self._planned,
            loop.source.index.nsamples,
            self._plain,
            newest.get("fd"),
            evaluator.limit,
            newest.get("seen", 0) / 1000,
            newest.get("recall", 0.0),
            newest.get("copies", 0.0),
            recent_mean(rows, "spread_fake", "spread_real"),
            recent_mean(rows, "r_t"),
            loop.config.generator.name == "dcgan",
            features_kimg(loop.config.discriminator),
        )

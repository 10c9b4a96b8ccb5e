"""Writes report.html with the samples, at most every half minute, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from training.callbacks.base import Cadence, Callback, EndReason
from training.latent.space import build_latent_space
from training.report import FrameCache, ReportExtras, write_report
from training.reporting.figures import FigureMaker, ReportFigures

if TYPE_CHECKING:
    from training.loop import Loop

_SECONDS = 30.0


class ReportCallback(Callback):
    """Writes the report when samples are due, within `record.time_share`."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._cadence = Cadence(loop, "report", loop.config.record.sample_kimg, _SECONDS)

    def on_start(self) -> None:
        self._figures, self._frames = FigureMaker(self.loop.source), FrameCache()

    def after_step(self) -> None:
        if self._cadence.is_due and self.loop.state.seen < self.loop.total:
            self.loop.on_main_process(self._write)

    def on_end(self, _reason: EndReason) -> None:
        self.loop.on_main_process(lambda: self._write(final=True))

    def _write(self, final: bool = False) -> None:
        """Generate the figures, and let a thread write the report."""
        loop, samples = self.loop, self.loop.samples
        with self._cadence.timed():
            state, encoder = loop.state, loop.state.averages.get("encoder")
            translations = samples.translations()
            make: Callable[[], ReportFigures]
            if translations is not None:
                make = partial(ReportFigures, translations=translations)
            else:
                space = build_latent_space(
                    state.g_ema.eval(), loop.config.latent, loop.source.classes, encoder
                )
                make = self._figures.latest(space, samples.latents, samples.labels, final)
            rows, seconds = list(loop.history.rows), loop.seconds_before + loop.seconds

            def write() -> None:
                extras = ReportExtras(seconds, make(), self._frames)
                write_report(loop.run_files, rows, extras)

            loop.writer.submit("report", write)

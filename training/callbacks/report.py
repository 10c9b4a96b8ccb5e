"""Writes report.html with the samples, at most every half minute, and at the end."""

from __future__ import annotations

import time

from training.callbacks.base import Callback, EndReason
from training.latent.space import build_latent_space
from training.report import ReportExtras, write_report
from training.reporting.figures import FigureMaker

_SECONDS = 30.0


class ReportCallback(Callback):
    """Writes the report when samples are due."""

    _written = 0.0

    def on_start(self) -> None:
        self._figures = FigureMaker(self.loop.source)

    def after_step(self) -> None:
        if self.loop.samples.is_due() and time.monotonic() - self._written >= _SECONDS:
            self.loop.on_main_process(self._write)

    def on_end(self, _reason: EndReason) -> None:
        self.loop.on_main_process(lambda: self._write(final=True))

    def _write(self, final: bool = False) -> None:
        loop = self.loop
        space = build_latent_space(loop.state.g_ema.eval(), loop.config.latent, loop.source.classes)
        figures = self._figures.latest(space, loop.samples.latents, loop.samples.labels, final)
        extras = ReportExtras(loop.seconds_before + loop.seconds, figures)
        write_report(loop.run_files, loop.history.rows, extras)
        self._written = time.monotonic()

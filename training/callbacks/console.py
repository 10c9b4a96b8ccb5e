"""Shows the progress of a run: position, speed, time left, disk, cost; and the forecast, at the
start and where steps begin to take longer."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pipeline.contract import format_bytes
from training.callbacks.base import Callback
from training.machine.disk import free_bytes
from training.monitoring.console import TrainingProgress
from training.monitoring.rate import RecentRate
from training.options.architectures import features_kimg
from training.planning.advice import speed_remark
from training.planning.forecast import Forecast, cost, is_timed, plan_course

if TYPE_CHECKING:
    from training.loop import Loop

_DISK_SECONDS = 5.0


class ConsoleCallback(Callback):
    """Updates the display after every step."""

    _free, _free_at = 0, -math.inf

    def __init__(self, loop: Loop, forecast: Forecast | None) -> None:
        super().__init__(loop)
        self._forecast = forecast

    def on_timers_reset(self) -> None:
        now, seen = time.monotonic(), self.loop.state.seen
        self._start, self._started_at = now, seen
        self._warm = (now, seen)
        self._forecast_due = False
        self._rate, self._measured = RecentRate(now, seen), ""

    def after_step(self) -> None:
        loop, config = self.loop, self.loop.config
        per_step = config.batch * config.n_critic
        if self._features_joined(per_step):
            self._start, self._started_at = time.monotonic(), loop.state.seen - per_step
        rate = self._rate.at(time.monotonic(), loop.state.seen)
        left = (loop.total - loop.state.seen) / rate
        if config.max_hours:
            left = min(left, max(0.0, config.max_hours * 3600 - loop.seconds))
        last = loop.log.row or (loop.history.rows[-1] if loop.history.rows else None)
        steps = (loop.state.seen - self._started_at) // per_step
        self._print_forecast(steps)
        spent = f"disk {format_bytes(self._free_bytes())} free"
        if config.price_per_hour:
            spent += f"  cost {cost(loop.seconds_before + loop.seconds, config.price_per_hour)}"
        if loop.log.row or steps == 1:
            self._measured = loop.evaluation.evaluator.format_latest(loop.history.rows)
        loop.display.update(
            TrainingProgress(loop.state.seen, loop.total, rate, left, last, self._measured, spent)
        )

    def _features_joined(self, per_step: int) -> bool:
        """Return True after the first step with discriminators on frozen features that join."""
        join = 1000 * features_kimg(self.loop.config.discriminator)
        before = self.loop.state.seen - per_step
        return self._started_at < join <= before < join + per_step

    def _print_forecast(self, steps: int) -> None:
        """Print how far the run gets within its limits, a few steps after the start and after
        discriminators on frozen features have joined."""
        loop, config = self.loop, self.loop.config
        if steps == 1:
            self._warm = time.monotonic(), loop.state.seen
            self._forecast_due = True
        seconds, images = time.monotonic() - self._warm[0], loop.state.seen - self._warm[1]
        if not self._forecast_due or not is_timed(config, steps - 1, seconds):
            return
        self._forecast_due = False
        start = self._started_at / 1000
        used = loop.seconds - (time.monotonic() - self._start)
        course = plan_course(
            seconds / images * 1000, loop.total / 1000 - start, config.max_hours, used,
            config.price_per_hour,
        )  # fmt: skip
        loop.display.message(course.text())
        until = start + course.kimg
        if line := speed_remark(config, course.seconds_per_kimg, self._started_at, until):
            loop.display.message(line)
        if self._forecast and config.max_hours:
            loop.display.message(self._forecast.disk_line(config, loop.source, until))

    def _free_bytes(self) -> int:
        """Free bytes on the run's disk, read every few seconds."""
        now = time.monotonic()
        if now - self._free_at >= _DISK_SECONDS:
            self._free, self._free_at = free_bytes(self.loop.run_files.folder), now
        return self._free

"""Ends a run in order: at its hours, on a signal, before the disk is full."""

from __future__ import annotations

import time

from training.callbacks.base import Action, Callback


class LimitsCallback(Callback):
    """Asks for the end of the run before a step."""

    _steps, _slowest = 0, 0.0

    def after_step(self) -> None:
        self._steps += 1

    def before_step(self) -> Action:
        loop = self.loop
        if self._steps > 1:  # the first one compiles, and tries algorithms
            self._slowest = max(self._slowest, time.monotonic() - loop.step_started)
        if loop.disk_full:
            return Action.DISK
        if loop.stop_signal.requested:
            return Action.INTERRUPTED
        # a step and its follow-up work must still fit; several processes stop one step late
        reserve = 2 * (self._slowest + loop.checkpoints.seconds + loop.samples.seconds)
        reserve += self._slowest * (loop.ranks.world_size > 1)
        limit = loop.config.max_hours * 3600
        return Action.HOURS if limit and loop.seconds + reserve >= limit else Action.NONE

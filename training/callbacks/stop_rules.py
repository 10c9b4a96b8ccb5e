"""Ends a run in order when one of its rules (`stop`) says that training on is of no use."""

from __future__ import annotations

from training.callbacks.base import Action, Callback
from training.monitoring.monitors import stop_reason


class StopRulesCallback(Callback):
    """Asks for the end before the next step, also of a resumed run. Only the main process has the
    rows; all follow it."""

    reason = ""
    """Why the run ends, for people; empty: no rule applies."""
    _rows = -1

    def before_step(self) -> Action:
        rows = self.loop.history.rows
        if len(rows) != self._rows:
            self._rows = len(rows)
            self.reason = stop_reason(rows, self.loop.config.stop)
        return Action.RULE if self.reason else Action.NONE

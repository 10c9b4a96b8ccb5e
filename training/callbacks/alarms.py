"""Warns of mode collapse, vanishing gradients and other signs of failure in the history."""

from __future__ import annotations

from training.callbacks.base import Callback
from training.monitoring.monitors import alarms

_QUIET_ROWS = 20
"""Rows until the same alarm is printed again."""


class AlarmsCallback(Callback):
    """Prints each alarm once per `_QUIET_ROWS` rows."""

    def on_start(self) -> None:
        self._last: dict[str, int] = {}

    def after_step(self) -> None:
        if not self.loop.log.row:
            return
        rows = self.loop.history.rows
        # a rollback drops rows, and with them the alarms of those
        self._last = {kind: row for kind, row in self._last.items() if row <= len(rows)}
        for alarm in alarms(rows[-200:], self.loop.config):
            if len(rows) - self._last.get(alarm.kind, -_QUIET_ROWS) >= _QUIET_ROWS:
                self._last[alarm.kind] = len(rows)
                at = f"{self.loop.state.seen / 1000:g} kimg"
                self.loop.display.message(f"warning at {at}: {alarm.text}")

"""Sends metrics, configuration and samples to an experiment tracker (`tracking`)."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.contract import printable, short_reason, write_json
from training.callbacks.base import Callback, EndReason
from training.monitoring.history import Row
from training.monitoring.trackers import Tracker, start_tracker
from training.options.resolve import flatten

_WAITING = 1000
_PATIENCE = 60.0
"""How long the end of a run waits for a tracker, in seconds."""


class TrackingCallback(Callback):
    """A thread sends in order, so that a slow tracker does not delay steps.

    The first failure is one warning, and then tracking is off: it never ends a run.
    """

    _tracker: Tracker | None = None

    def on_start(self) -> None:
        loop, name = self.loop, self.loop.config.tracking
        if not name or not loop.ranks.is_main:
            return
        self._path = loop.run_files.folder / "tracking.json"
        try:
            known = json.loads(self._path.read_text()) if self._path.exists() else {}
            config = flatten(loop.config)
            folder = loop.run_files.folder
            self._tracker = start_tracker(name, folder, config, str(known.get(name, "")))
            write_json(self._path, {**known, name: self._tracker.id})
        except Exception as error:  # noqa: BLE001 (a tracker may fail in any way)
            self._fail(error)
            return
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send_all, name="tracking", daemon=True)
        self._thread.start()

    def on_row(self, row: Row) -> None:
        seen = row["seen"]
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "seen" and isinstance(value, int | float) and math.isfinite(value)
        }
        if self._tracker is not None:
            self._add(partial(self._tracker.log, seen, numbers))

    def on_grid(self, seen: int, path: Path) -> None:
        if self._tracker is not None:
            self._add(partial(self._tracker.log_image, seen, path))

    def on_end(self, reason: EndReason) -> None:
        if self._tracker is None:
            return
        self._add(partial(self._tracker.finish, reason is EndReason.DIVERGED))
        if self._tracker is not None:
            self._add(None)
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                self._fail(f"not all was sent within {_PATIENCE:g} s")
            elif self._error is not None:
                self._fail(self._error)

    def _add(self, action: Callable[[], None] | None) -> None:
        if self._error is not None:
            self._fail(self._error)
            return
        try:
            self._waiting.put_nowait(action)
        except queue.Full:
            self._fail("it is slower than the training")

    def _send_all(self) -> None:
        try:
            while (action := self._waiting.get()) is not None:
                action()
        except Exception as error:  # noqa: BLE001 (a tracker may fail in any way)
            self._error = error

    def _fail(self, error: Exception | str) -> None:
        self._tracker = None
        reason = printable(error if isinstance(error, str) else short_reason(error), 200)
        self.loop.display.message(
            f"warning: tracking: {self.loop.config.tracking} failed ({reason}); the run continues "
            "without it"
        )

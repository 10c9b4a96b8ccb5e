"""Handling of stop signals."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignal:
    """Records SIGINT and SIGTERM in the `with` block, instead of ending the process.

    A second signal takes effect at once, unless `patient`: torchrun forwards a signal that the
    processes of a terminal have already received. Only the main thread can receive signals, so in
    other threads nothing is recorded.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested, self._patient = False, patient

    def __enter__(self) -> StopSignal:
        is_main = threading.current_thread() is threading.main_thread()
        self._before = {
            number: signal.signal(number, self._ask)
            for number in ((signal.SIGINT, signal.SIGTERM) if is_main else ())
        }
        return self

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and not self._patient:  # a second signal is meant seriously
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""Handling of stop signals."""

from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """Records SIGINT and SIGTERM in the `with` block, instead of ending the process.

    A second signal takes effect at once, unless `patient`: torchrun forwards a signal that the
    processes of a terminal have already received.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested, self._patient = False, patient

    def __enter__(self) -> StopSignal:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
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

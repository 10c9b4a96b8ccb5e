"""Reports what requests wait for, so that no long pause is unexplained."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.events import EventLog

PATIENCE = 10.0
"""Shortest wait in seconds that is reported."""

_MAX_PAUSE = 600.0
_MAX_AT_ONCE = 4
_TICK = 1.0


@dataclass(frozen=True)
class Wait:
    """A request to `host` that waits for `reason`. `about` is the reason without numbers; `left` is
    the number of seconds left, if known."""

    host: str
    about: str
    reason: str
    left: float | None = None

    def __str__(self) -> str:
        left = f", {describe_seconds(self.left)} left" if self.left is not None else ""
        return f"{self.host}: {self.reason}{left}"


OnWait = Callable[[Wait], None]


def log_waits(log: EventLog, stage: str) -> OnWait:
    """Return a callback that logs each wait as an event of `stage`."""

    def log_wait(wait: Wait) -> None:
        left = None if wait.left is None else describe_seconds(wait.left)
        log.emit(stage, "waiting", host=wait.host, reason=wait.reason, left=left)

    return log_wait


def describe_seconds(seconds: float) -> str:
    """Return a duration such as `40 s`, `5 min`, `3 h` or `2 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


class WaitReporter:
    """Reports each host and reason at once, and then after growing pauses; a few at a time."""

    def __init__(self, on_wait: OnWait) -> None:
        self._on_wait = on_wait
        self._reported: dict[tuple[str, str], tuple[float, float]] = {}
        self._window = -PATIENCE
        self._lines = 0

    def update(self, waits: Iterable[tuple[float, Wait]], now: float) -> None:
        """Report those of `waits` that are due, each given with the seconds it has lasted."""
        if now - self._window >= PATIENCE:
            self._window, self._lines = now, 0
            self._reported = {
                key: (when, pause)
                for key, (when, pause) in self._reported.items()
                if when + _MAX_PAUSE > now
            }
        due: list[tuple[float, Wait]] = []
        for elapsed, wait in waits:
            is_long = elapsed >= PATIENCE or (wait.left or 0.0) >= PATIENCE
            when, _ = self._reported.get((wait.host, wait.about), (-math.inf, PATIENCE))
            if is_long and now >= when:
                due.append((when, wait))
        due.sort(key=lambda one: one[0])  # those never reported come first
        for _, wait in due[: _MAX_AT_ONCE - self._lines]:
            self._lines += 1
            _, pause = self._reported.get((wait.host, wait.about), (now, PATIENCE))
            longer = min(2 * pause, _MAX_PAUSE)
            self._reported[wait.host, wait.about] = (now + pause, longer)
            self._on_wait(wait)


Describe = Callable[[float], Wait]
"""Returns the wait at a time in seconds of the monotonic clock."""


class WaitWatcher:
    """Reports the waits of several threads, from a thread of its own."""

    def __init__(self, on_wait: OnWait | None) -> None:
        self._waits: dict[int, tuple[float, Describe]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if on_wait is not None:
            self._reporter = WaitReporter(on_wait)
            self._thread = threading.Thread(target=self._watch, name="waits", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def during(self, describe: Describe) -> Iterator[None]:
        """Report what the block waits for, by calling `describe`."""
        me = threading.get_ident()
        self._waits[me] = (time.monotonic(), describe)
        try:
            yield
        finally:
            del self._waits[me]

    def _watch(self) -> None:
        while not self._stop.wait(_TICK):
            now = time.monotonic()
            waits = [(now - since, describe(now)) for since, describe in [*self._waits.values()]]
            with contextlib.suppress(OSError):  # a full disk is reported where data is written
                self._reporter.update(waits, now)

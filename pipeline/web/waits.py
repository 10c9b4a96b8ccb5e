"""What requests wait for, told to whoever watches: no long silence without a reason."""

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
"""Seconds: a shorter wait is not worth a word."""

_LONGEST_PAUSE = 600.0
_MOST_AT_ONCE = 4
_TICK = 1.0


@dataclass(frozen=True)
class Wait:
    """A request to `host` that waits for `reason`. `about` is the reason without its numbers;
    `left` are the seconds still to wait, where that is known."""

    host: str
    about: str
    reason: str
    left: float | None = None

    def __str__(self) -> str:
        left = f", {describe_seconds(self.left)} left" if self.left is not None else ""
        return f"{self.host}: {self.reason}{left}"


OnWait = Callable[[Wait], None]


def log_waits(log: EventLog, stage: str) -> OnWait:
    """Return a listener that logs each wait as an event of `stage`."""

    def tell(wait: Wait) -> None:
        left = None if wait.left is None else describe_seconds(wait.left)
        log.emit(stage, "waiting", host=wait.host, reason=wait.reason, left=left)

    return tell


def describe_seconds(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h` or `2 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


class WaitTeller:
    """Tells of waits: of each host and reason at once, and then after pauses that grow; of a few
    at a time."""

    def __init__(self, tell: OnWait) -> None:
        self._tell = tell
        self._told: dict[tuple[str, str], tuple[float, float]] = {}
        self._window = -PATIENCE
        self._lines = 0

    def look(self, waits: Iterable[tuple[float, Wait]], now: float) -> None:
        """Tell of the `waits`, each with the seconds that it lasts already, that it is time for."""
        if now - self._window >= PATIENCE:
            self._window, self._lines = now, 0
            self._told = {
                key: (when, pause)
                for key, (when, pause) in self._told.items()
                if when + _LONGEST_PAUSE > now
            }
        due: list[tuple[float, Wait]] = []
        for elapsed, wait in waits:
            is_long = elapsed >= PATIENCE or (wait.left or 0.0) >= PATIENCE
            when, _ = self._told.get((wait.host, wait.about), (-math.inf, PATIENCE))
            if is_long and now >= when:
                due.append((when, wait))
        due.sort(key=lambda one: one[0])  # who was never told of comes first
        for _, wait in due[: _MOST_AT_ONCE - self._lines]:
            self._lines += 1
            _, pause = self._told.get((wait.host, wait.about), (now, PATIENCE))
            longer = min(2 * pause, _LONGEST_PAUSE)
            self._told[wait.host, wait.about] = (now + pause, longer)
            self._tell(wait)


Describe = Callable[[float], Wait]
"""What is waited for at a time."""


class WaitWatcher:
    """Watches what several threads wait for, from one of its own."""

    def __init__(self, tell: OnWait | None) -> None:
        self._waits: dict[int, tuple[float, Describe]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if tell is not None:
            self._teller = WaitTeller(tell)
            self._thread = threading.Thread(target=self._watch, name="waits", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def during(self, describe: Describe) -> Iterator[None]:
        """Report what the block waits for, as described by `describe`."""
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
            with contextlib.suppress(OSError):  # a full disk: who writes more than words finds out
                self._teller.look(waits, now)

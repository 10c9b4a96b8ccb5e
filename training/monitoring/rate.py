"""The current speed of a run, for the estimate of the time left."""

from __future__ import annotations

from collections import deque

WINDOW = 120.0
"""Maximum age of a measurement in seconds: long enough for pauses, short enough to react to a
busy machine."""
_APART = 2.0


class RecentRate:
    """Images per second over the last `WINDOW` seconds, or since `start` if that is less."""

    def __init__(self, start: float, seen: int) -> None:
        self._marks = deque([(start, seen)])

    def at(self, now: float, seen: int) -> float:
        """Return the rate at the time `now`, when `seen` images have been processed; above 0."""
        while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= _APART:
            self._marks.append((now, seen))
        return max(seen - before, 1) / max(now - then, 1e-9)

"""How fast a run is now, for the time that is left."""

from __future__ import annotations

from collections import deque

WINDOW = 120.0
"""Seconds that a rate is told from at most: long enough for pauses, short enough for a machine
that became busy."""
_APART = 2.0


class RecentRate:
    """Images a second over the last `WINDOW` seconds, or since `start` if that is less ago."""

    def __init__(self, start: float, seen: int) -> None:
        self._marks = deque([(start, seen)])

    def at(self, now: float, seen: int) -> float:
        """The rate at the time `now`, when `seen` images have been shown; above 0."""
        while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= _APART:
            self._marks.append((now, seen))
        return max(seen - before, 1) / max(now - then, 1e-9)

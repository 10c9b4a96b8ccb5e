"""Decides when to choose the number of CPU threads again, because the machine became busy or idle.

The threads of an operator wait for each other. If one of them shares its core with another program,
all wait for it, and two threads can be slower than one. `ThreadTuner` decides from step times,
without a clock or threads of its own; `LiveThreads` applies its decisions.

Whether more threads are worthwhile is measured on a small workload (`planning.threads.seconds`),
not on the run's own steps. So the bits of a run change only if the number changes, and never on an
idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch

from training.config import Config
from training.optimizer import step_kind
from training.planning.threads import candidates, choose_threads, seconds

SLOW = 1.35
"""A measurement is worthwhile if steps take this many times as long as usual."""
SHARE = 0.02
"""Maximum fraction of the time spent on measurements."""
WARM, FEWEST, WINDOW = 2, 3, 1.0
"""Steps ignored after a change; minimum number of steps for a decision, and their minimum
duration in seconds."""
FIRST_WAIT, LONGEST_FEWER, LONGEST_WAIT, LONGEST_BLOCK = 5.0, 30.0, 300.0, 600.0
"""Seconds between two measurements: initially; maximum with fewer threads than available;
maximum with all; maximum after a change that did not help."""
STABLE = 300.0
"""If two changes are this many seconds apart, the next measurement is not delayed further."""
_REFERENCE = 5, 16
"""The usual time is the lowest median of this many consecutive steps of a kind (minimum,
maximum)."""


class Advice(Enum):
    """The result of a step's time: nothing; measure and call `choose`; call `undo`."""

    KEEP = 0
    MEASURE = 1
    UNDO = 2


class ThreadTuner:
    """Decides when to measure, and how many threads to use given the measurements.

    Args:
        threads: current number of threads.
        most: number of available threads.
        now: the time in seconds, as in all calls.

    Steps are compared with steps of their kind (`step_kind`), so periodic actions do
    not look like a busy machine; pauses between steps are ignored.
    """

    def __init__(self, threads: int, most: int, now: float) -> None:
        self.threads, self.most = threads, max(most, threads)
        self._wait, self._block = FIRST_WAIT, LONGEST_FEWER
        self._next, self._changed_at = now + FIRST_WAIT, now - STABLE
        self._before, self._is_confirmed = threads, False
        self._start()

    def _start(self) -> None:
        """Forget the step times of another number of threads."""
        self._recent: dict[Hashable, deque[float]] = {}
        self._usual: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}
        self._window: deque[tuple[Hashable, float]] = deque()
        self._seconds, self._skip = 0.0, WARM

    def observe(self, kind: Hashable, took: float, now: float) -> Advice:
        """Record a step of this kind and its duration in seconds."""
        if self._skip:
            self._skip -= 1
            return Advice.KEEP
        self._add(kind, took)
        if len(self._window) < FEWEST or self._seconds < WINDOW:
            return Advice.KEEP
        if self._old:
            ratio, self._old = self._compared(self._old), {}
            if ratio > 1:
                return Advice.UNDO
        if now < self._next:
            return Advice.KEEP
        # the first measurement makes sure that the usual time is not that of a busy machine
        sure = self._is_confirmed and self.threads == self.most
        worth = not sure or self.slowdown() >= SLOW
        return Advice.MEASURE if worth else Advice.KEEP

    def _add(self, kind: Hashable, took: float) -> None:
        self._window.append((kind, took))
        self._seconds += took
        while len(self._window) > FEWEST and self._seconds - self._window[0][1] >= WINDOW:
            self._seconds -= self._window.popleft()[1]
        recent = self._recent.setdefault(kind, deque(maxlen=_REFERENCE[1]))
        recent.append(took)
        if len(recent) >= _REFERENCE[0]:
            median = statistics.median(recent)
            self._usual[kind] = min(self._usual.get(kind, median), median)

    def slowdown(self) -> float:
        """Return how many times as long as usual the newest steps took; 1 while unknown."""
        return self._compared(self._usual)

    def _compared(self, usual: Mapping[Hashable, float]) -> float:
        ratios = [took / usual[kind] for kind, took in self._window if usual.get(kind)]
        return statistics.median(ratios) if ratios else 1.0

    def choose(self, times: Mapping[int, float], cost: float, now: float) -> int:
        """Return the number of threads to use from now on.

        Args:
            times: seconds that a workload took for each number of `candidates(most)`.
            cost: seconds that the measurement took.
            now: the time when it was finished.
        """
        chosen, self._is_confirmed = choose_threads(self.most, times.__getitem__), True
        if chosen == self.threads:
            longest = LONGEST_FEWER if self.threads < self.most else LONGEST_WAIT
            self._wait = min(2 * self._wait, longest)
        else:
            quick = now - self._changed_at < STABLE
            self._wait = min(2 * self._wait, LONGEST_FEWER) if quick else FIRST_WAIT
            old = {
                kind: statistics.median(took for one, took in self._window if one == kind)
                for kind, _ in self._window
            }
            self._change(chosen, now)
            self._old = old
        self._next = now + max(self._wait, cost / SHARE)
        return self.threads

    def undo(self, now: float) -> int:
        """Return the number of threads before the last change, which made steps slower."""
        self._change(self._before, now)
        self._block = min(2 * self._block, LONGEST_BLOCK)
        self._next = now + self._block
        return self.threads

    def _change(self, threads: int, now: float) -> None:
        self._before, self.threads, self._changed_at = self.threads, threads, now
        self._start()


@dataclass(frozen=True)
class Change:
    """A new number of threads, and the reason in words."""

    before: int
    threads: int
    why: str


class LiveThreads:
    """Watches the steps of a run on the CPU whose number of threads was not given.

    `most` is the number of available threads; `clock` and `measure` are for tests.
    """

    def __init__(
        self,
        config: Config,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        measure: Callable[[int], float] = seconds,
    ) -> None:
        self._config, self._clock, self._measure = config, clock, measure
        self._tuner = ThreadTuner(torch.get_num_threads(), most, clock())

    def after_step(self, steps: int, took: float) -> Change | None:
        """Return the change after a step that took this many seconds, or None.

        The caller has to set PyTorch's number of threads to `Change.threads`.
        """
        tuner, before = self._tuner, self._tuner.threads
        advice = tuner.observe(step_kind(self._config, steps), took, self._clock())
        if advice is Advice.KEEP:
            return None
        if advice is Advice.UNDO:
            return Change(before, tuner.undo(self._clock()), "the steps became slower")
        slow, start = tuner.slowdown(), self._clock()
        times = {threads: self._measure(threads) for threads in candidates(tuner.most)}
        chosen = tuner.choose(times, self._clock() - start, self._clock())
        if chosen == before:
            return None
        if chosen > before:
            return Change(before, chosen, "the cores are free again")
        return Change(before, chosen, f"other programs use the cores ({slow:.1f} times the usual)")

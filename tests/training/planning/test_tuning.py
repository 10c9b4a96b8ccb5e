"""Threads on a busy machine, simulated: the figures are those measured on two cores."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from training.planning.threads import candidates
from training.planning.tuning import SHARE, Advice, ThreadTuner

STEPS = {
    0: {1: 16 / 176, 2: 16 / 244},
    1: {1: 16 / 172, 2: 16 / 66},
    2: {1: 16 / 115, 2: 16 / 63},
}
"""Seconds of a step beside so many busy programs, by number of threads."""
WORK = {0: {1: 0.042, 2: 0.022}, 1: {1: 0.040, 2: 0.043}, 2: {1: 0.06, 2: 0.09}}
"""Seconds of the piece of work that is measured; five rounds of it are one measurement."""
Busy = Callable[[float], int]


@dataclass
class Machine:
    """A run on a machine with `busy(t)` other programs; `factor` of the step's time by number of
    the step, `noise` a relative deviation."""

    busy: Busy
    threads: int = 2
    most: int = 2
    steps: dict[int, dict[int, float]] = field(default_factory=lambda: STEPS)
    work: dict[int, dict[int, float]] = field(default_factory=lambda: WORK)
    factor: Callable[[int], float] = lambda _: 1.0
    kind: Callable[[int], int] = lambda _: 0
    pause: Callable[[int], float] = lambda _: 0.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        self.now, self.count, self.random = 0.0, 0, random.Random(1)
        self.tuner = ThreadTuner(self.threads, self.most, 0.0)
        self.changes: list[tuple[float, int]] = []
        self.done: list[tuple[float, float]] = []
        self.measured: list[float] = []

    def _noisy(self, value: float, part: float = 1.0) -> float:
        return value * self.random.lognormvariate(0, self.noise * part)

    def run(self, until: float) -> Machine:
        tuner = self.tuner
        while self.now < until:
            took = self._noisy(self.steps[self.busy(self.now)][tuner.threads])
            took *= self.factor(self.count)
            self.now += took
            self.done.append((self.now, took))
            advice, before = tuner.observe(self.kind(self.count), took, self.now), tuner.threads
            if advice is Advice.MEASURE:
                start, times = self.now, {}
                for number in candidates(self.most):
                    times[number] = self._noisy(
                        self.work[self.busy(self.now)][number], 0.5
                    )  # a median
                    self.now += 5 * times[number]
                self.measured.append(self.now)
                tuner.choose(times, self.now - start, self.now)
            elif advice is Advice.UNDO:
                tuner.undo(self.now)
            if tuner.threads != before:
                self.changes.append((self.now, tuner.threads))
            self.now += self.pause(self.count)
            self.count += 1
        return self

    def speed(self, start: float, end: float) -> float:
        """Images a second, measurements included."""
        return 16 * sum(start <= now < end for now, _ in self.done) / (end - start)


def always(count: int) -> Busy:
    return lambda _: count


def between(start: float, end: float, count: int = 1) -> Busy:
    return lambda now: count if start <= now < end else 0


QUIET = 244.0


@pytest.mark.slow
def test_a_quiet_machine_is_measured_once_and_nothing_changes() -> None:
    machine = Machine(always(0)).run(3600)
    assert machine.changes == []
    assert len(machine.measured) == 1
    assert machine.speed(0, 3600) > 0.97 * QUIET


@pytest.mark.parametrize("count", [1, 2])
def test_a_drop_is_noticed_within_seconds_and_so_is_its_end(count: int) -> None:
    machine = Machine(between(100, 700, count)).run(900)
    (down, fewer), (up, more) = machine.changes
    assert (fewer, more) == (1, 2)
    assert 100 < down < 105
    assert 700 < up < 735
    if count == 1:
        assert machine.speed(100, 700) >= 0.65 * QUIET
    assert machine.speed(100, 700) >= 0.95 * 16 / STEPS[count][1]
    assert machine.speed(740, 900) > 0.95 * QUIET


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_begins_on_a_busy_machine(threads: int) -> None:
    machine = Machine(between(0, 300), threads=threads).run(400)
    assert machine.speed(0, 300) >= 0.65 * QUIET
    assert machine.changes[-1][1] == 2
    assert 300 < machine.changes[-1][0] < 335


def test_large_steps_are_noticed_after_a_few() -> None:
    steps = {busy: {n: took * 100 for n, took in by.items()} for busy, by in STEPS.items()}
    machine = Machine(between(1000, 6000), steps=steps).run(6500)
    (down, fewer), (up, more) = machine.changes
    assert (fewer, more) == (1, 2)
    assert down < 1000 + 4 * steps[1][2]
    assert up < 6000 + 60


@pytest.mark.parametrize(
    "made",
    [
        lambda: Machine(always(0), kind=lambda n: int(n % 16 == 0),
                        factor=lambda n: 4.0 if n % 16 == 0 else 1.0),
        lambda: Machine(always(0), kind=lambda n: int(n % 4 == 0) + 2 * int(n % 6 == 0),
                        factor=lambda n: 1.0 + (n % 4 == 0) + 2 * (n % 6 == 0)),
        lambda: Machine(always(0), factor=lambda n: 100.0 if n < 2 else 1.0),
        lambda: Machine(always(0), factor=lambda n: 20.0 if n % 50 == 49 else 1.0),
        lambda: Machine(always(0), pause=lambda n: 60.0 if n % 500 == 499 else 0.0),
        lambda: Machine(always(0), noise=0.3),
    ],
    ids=["lazy penalty", "penalty and paths", "warm-up", "some slow steps", "evaluations", "noise"],
)  # fmt: skip
def test_what_is_no_busy_machine_changes_nothing(made: Callable[[], Machine]) -> None:
    machine = made().run(3000)
    assert machine.changes == []
    assert len(machine.measured) <= 20


def test_steps_that_became_harder_are_measured_rarely_and_change_nothing() -> None:
    machine = Machine(always(0), factor=lambda n: 1.0 if n < 2000 else 2.0).run(3600)
    assert machine.changes == []
    assert len(machine.measured) <= 20


def test_load_that_comes_and_goes_does_not_make_it_thrash() -> None:
    machine = Machine(lambda now: int(now % 20 < 10)).run(3600)
    assert len(machine.changes) < 3600 / 20
    machine_of_two = Machine(lambda now: int(now % 20 < 10)).run(3600)
    assert machine_of_two.changes == machine.changes  # nothing but what it is told decides
    assert machine.speed(0, 3600) > 0.62 * QUIET  # all the time with one thread: 174


@pytest.mark.slow
def test_a_run_that_more_threads_make_slower_keeps_fewer() -> None:
    """The piece of work says that two pay, the run's own small steps say that they do not."""
    steps = {0: {1: 0.010, 2: 0.013}}
    machine = Machine(always(0), threads=1, steps=steps).run(3600)
    lost = sum(took - 0.010 for _, took in machine.done) + 0.3 * len(machine.measured)
    assert lost < 0.04 * 3600
    assert machine.changes[-1][1] == 1 or machine.changes[-1][0] > 3590
    assert len(machine.changes) < 30


def test_a_machine_with_eight_cores_leaves_one_to_the_other_program() -> None:
    free = {n: 0.8 / n + 0.02 for n in candidates(8)}
    shared = {**free, 8: 2 * free[8]}
    steps = {0: free, 1: shared}
    work = {busy: {n: took / 10 for n, took in by.items()} for busy, by in steps.items()}
    machine = Machine(between(200, 600), 8, 8, steps, work, noise=0.03).run(800)
    assert [threads for _, threads in machine.changes] == [7, 8]
    assert machine.speed(200, 600) > 0.8 * 16 / free[8]


@pytest.mark.slow
def test_measuring_takes_a_small_share_of_the_time() -> None:
    for busy in (always(0), always(1), always(2), lambda now: int(now % 40 < 20)):
        machine = Machine(busy).run(3600)
        cost = sum(5 * sum(WORK[busy(now)].values()) for now in machine.measured)
        assert cost < 1.5 * SHARE * 3600

"""Whatever steps and measurements tell: the number of threads stays possible, changes are rare."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.planning.threads import candidates, choose_threads
from training.planning.tuning import FIRST_WAIT, SHARE, Advice, ThreadTuner

seconds = st.floats(1e-4, 1e3)


@given(
    st.integers(1, 64), st.integers(1, 64),
    st.lists(st.tuples(st.integers(0, 3), seconds, st.floats(0, 100)), max_size=200),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_any_course_of_times_is_followed_within_bounds(
    threads: int, most: int, steps: list[tuple[int, float, float]], random: object
) -> None:
    now, spent, changes, tuner = 0.0, 0.0, 0, ThreadTuner(threads, most, 0.0)
    possible = {threads, *candidates(tuner.most)}
    last = -FIRST_WAIT
    for kind, took, pause in steps:
        now += took
        advice, before = tuner.observe(kind, took, now), tuner.threads
        if advice is Advice.MEASURE:
            assert now - last >= FIRST_WAIT  # never more often
            times = {n: random.uniform(1e-3, 0.1) for n in candidates(tuner.most)}  # type: ignore[attr-defined]
            spent += sum(times.values())
            now += sum(times.values())
            assert tuner.choose(times, sum(times.values()), now) == tuner.threads
            last = now
        elif advice is Advice.UNDO:
            tuner.undo(now)
        assert tuner.threads in possible
        changes += tuner.threads != before
        now += pause
    assert spent <= SHARE * now + 0.1 * len(possible)
    assert changes <= 2 * now / FIRST_WAIT + 1


@given(st.integers(1, 256), st.randoms(use_true_random=False))
def test_the_choice_is_a_candidate_and_no_slower_than_one_thread(most: int, random: object) -> None:
    times = {n: random.uniform(1e-3, 1.0) for n in candidates(most)}  # type: ignore[attr-defined]
    assert candidates(most)[0] == 1
    assert candidates(most)[-1] == most
    chosen = choose_threads(most, times.__getitem__)
    assert chosen in times
    assert times[chosen] <= times[1]

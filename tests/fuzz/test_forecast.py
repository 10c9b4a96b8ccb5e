"""Forecasts under limits: never negative, never beyond a limit, monotone in each of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import format_bytes, parse_config
from training.config import Config, crossed
from training.planning.forecast import FORECAST_STEPS, cost, is_timed, plan_course

positive = st.floats(1e-6, 1e9)
amounts = st.just(0.0) | positive


@given(positive, amounts, amounts, amounts, amounts)
def test_a_course_stays_within_every_limit(
    speed: float, left: float, hours: float, used: float, price: float
) -> None:
    course = plan_course(speed, left, hours, used, price)
    assert 0 <= course.kimg <= left
    assert course.seconds >= 0
    assert course.cost >= 0
    if hours:
        assert course.seconds <= hours * 3600
        assert course.kimg * speed <= max(0.0, hours * 3600 - used) * (1 + 1e-9)
    else:
        assert course.kimg == left
    assert course.limit == ("total_kimg" if course.kimg == left else "max_hours")
    said = course.text()
    assert "\n" not in said
    assert said.startswith("forecast: ")
    assert ("cost" in said) == bool(price)


@given(positive, amounts, positive, positive, amounts, st.floats(1, 100))
def test_a_wider_limit_never_gives_less(
    speed: float, left: float, hours: float, used: float, price: float, times: float
) -> None:
    one = plan_course(speed, left, hours, used, price)
    for more in (
        plan_course(speed, left * times, hours, used, price),
        plan_course(speed, left, hours * times, used, price),
        plan_course(speed, left, 0.0, used, price),
        plan_course(speed, left, hours, used / times, price),
        plan_course(speed / times, left, hours, used, price),
    ):
        assert more.kimg >= one.kimg * (1 - 1e-9)
    dearer = plan_course(speed, left, hours, used, price * times)
    assert dearer.cost >= one.cost * (1 - 1e-9)
    assert dearer.kimg == one.kimg


@given(amounts, positive, st.integers(0, 10**12), st.integers(0, 10**9), amounts)
def test_no_number_raises(kimg: float, total: float, seen: int, steps: int, seconds: float) -> None:
    config = parse_config(Config, {"evaluate": {"kimg": kimg}, "total_kimg": total}, "test")
    every = config.evaluate.kimg * 1000
    assert crossed(0, seen, config.evaluate.kimg) == (0 < every <= seen)
    assert not is_timed(config, steps, seconds) or steps >= FORECAST_STEPS
    assert format_bytes(seconds)
    assert cost(seconds, kimg)

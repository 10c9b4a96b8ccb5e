"""The speed and the time left follow a machine that becomes busy."""

from __future__ import annotations

import pytest

from training.monitoring.rate import WINDOW, RecentRate


def test_the_rate_is_that_of_the_last_two_minutes() -> None:
    rate, seen = RecentRate(1000.0, 500), 500
    assert rate.at(1000.0, 500) > 0
    for second in range(1, 3601):
        seen += 200 if second <= 1800 else 50
        found = rate.at(1000.0 + second, seen)
        if second <= 1800:
            assert found == pytest.approx(200)
        elif second >= 1800 + WINDOW + 5:
            assert found == pytest.approx(50)
        else:
            assert 49 < found < 201
    assert len(rate._marks) < WINDOW


def test_a_pause_lowers_it_for_a_while_only() -> None:
    rate = RecentRate(0.0, 0)
    for second in range(1, 101):
        rate.at(float(second), 100 * second)
    assert rate.at(160.0, 10_100) == pytest.approx((10_100 - 4_000) / 120, rel=0.05)
    for second in range(161, 400):
        found = rate.at(float(second), 10_100 + 100 * (second - 160))
    assert found == pytest.approx(100)

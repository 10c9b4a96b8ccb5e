"""What the monitors say of rows that show a sign, and that they are silent otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from training.monitoring.monitors import RECENT, alarms


def healthy(number: int) -> dict[str, Any]:
    wobble = 1 + 0.1 * (number % 3)
    return {
        "seen": number, "d_real": 0.7 * wobble, "d_fake_before": 0.3, "grad_g": 0.5 * wobble,
        "spread_real": 0.4, "spread_fake": 0.3 * wobble,
    }  # fmt: skip


BAD = {
    "discriminator": ({"d_real": 0.99, "d_fake_before": 0.004}, "--label_real 0.9"),
    "gradient": ({"grad_g": 0.0004}, "--loss.name"),
    "collapse": ({"spread_fake": 0.03}, "--discriminator.minibatch_stddev"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_sign_that_lasts_is_told_with_a_remedy(kind: str) -> None:
    change, remedy = BAD[kind]
    rows = [healthy(number) for number in range(20)]
    assert alarms(rows) == []
    rows += [healthy(20 + number) | change for number in range(RECENT - 1)]
    assert alarms(rows) == []  # not yet
    rows.append(healthy(30) | change)
    (alarm,) = alarms(rows)
    assert alarm.kind == kind
    assert remedy in alarm.text


def test_losses_without_probabilities_and_new_runs_are_left_alone() -> None:
    rows = [{"seen": n, "grad_g": 0.0, "loss_d": 0.0} for n in range(RECENT + 2)]
    assert alarms(rows) == []
    assert alarms([]) == []
    # a generator that has not begun to make different pictures has not collapsed
    start = [healthy(n) | {"spread_fake": 0.02} for n in range(20)]
    assert alarms(start) == []
    # nor has one whose first samples wavered between alike and a little less so
    wavering = [healthy(n) | {"spread_fake": 0.03} for n in range(10)]
    wavering += [healthy(n) | {"spread_fake": 0.012} for n in range(10)]
    assert alarms(wavering) == []

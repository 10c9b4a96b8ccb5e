"""What the monitors say of rows that show a sign, and that they are silent otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from training.monitoring.monitors import RECENT, alarms


def healthy(number: int) -> dict[str, Any]:
    wobble = 1 + 0.1 * (number % 3)
    return {
        "seen": number, "d_real": 0.7 * wobble, "d_fake_before": 0.3, "grad_g": 0.5 * wobble,
        "spread_real": 0.4, "spread_fake": 0.3 * wobble, "separation": 0.7 * wobble,
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


@pytest.mark.parametrize(("share", "expected"), [(1.0, ["discriminator"]), (0.97, [])])
def test_a_winning_discriminator_without_probabilities_is_found_by_its_separation(
    share: float, expected: list[str]
) -> None:
    rows = [{"seen": n, "grad_g": 0.5, "separation": share} for n in range(RECENT)]
    found = alarms(rows)
    assert [alarm.kind for alarm in found] == expected
    assert "label_real" not in "".join(alarm.text for alarm in found)


def test_a_discriminator_that_only_guesses_for_long_is_found() -> None:
    rows = [healthy(number) for number in range(20)]
    guessing = [healthy(20 + n) | {"separation": 0.5 + 0.01 * (-1) ** n} for n in range(20)]
    assert alarms(rows + guessing[:-1]) == []
    (alarm,) = alarms(rows + guessing)
    assert alarm.kind == "chance"
    assert "--discriminator.width" in alarm.text
    # rows of few images that scatter around one half say nothing
    rows += [healthy(20 + n) | {"separation": 0.5 + 0.2 * (-1) ** n} for n in range(20)]
    assert alarms(rows) == []


def test_a_discriminator_that_never_told_them_apart_has_not_begun_to_guess() -> None:
    assert alarms([{"seen": n, "grad_g": 0.5, "separation": 0.5} for n in range(20)]) == []


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

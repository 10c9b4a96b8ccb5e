"""What the monitors say of rows that show a sign, and that they are silent otherwise."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from training.callbacks.alarms import AlarmsCallback
from training.config import Config
from training.monitoring.monitors import RECENT, alarms
from training.options.algorithm import LossOptions
from training.options.resolve import resolve


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
    assert alarms(rows, Config()) == []
    rows += [healthy(20 + number) | change for number in range(RECENT - 1)]
    assert alarms(rows, Config()) == []  # not yet
    rows.append(healthy(30) | change)
    (alarm,) = alarms(rows, Config())
    assert alarm.kind == kind
    assert remedy in alarm.text


def test_a_rollback_drops_the_alarms_of_later_rows() -> None:
    said: list[str] = []
    history = SimpleNamespace(rows=[healthy(n) | BAD["collapse"][0] for n in range(60)])
    history.rows[:20] = [healthy(number) for number in range(20)]
    callback = AlarmsCallback(
        SimpleNamespace(
            log=SimpleNamespace(row=True), history=history, config=Config(),
            state=SimpleNamespace(seen=0), display=SimpleNamespace(message=said.append),
        )  # type: ignore[arg-type]
    )  # fmt: skip
    callback.on_start()
    for expected in (1, 1):  # the second time it is known
        callback.after_step()
        assert len(said) == expected
    del history.rows[45:]
    callback.after_step()
    assert len(said) == 2


@pytest.mark.parametrize(("share", "expected"), [(1.0, ["discriminator"]), (0.97, [])])
def test_a_winning_discriminator_without_probabilities_is_found_by_its_separation(
    share: float, expected: list[str]
) -> None:
    rows = [{"seen": n, "grad_g": 0.5, "separation": share} for n in range(RECENT)]
    config = replace(Config(), loss=LossOptions(name="wgan"))
    found = alarms(rows, config)
    assert [alarm.kind for alarm in found] == expected
    assert "label_real" not in "".join(alarm.text for alarm in found)


def test_a_discriminator_that_only_guesses_for_long_is_found() -> None:
    rows = [healthy(number) for number in range(20)]
    guessing = [healthy(20 + n) | {"separation": 0.5 + 0.01 * (-1) ** n} for n in range(20)]
    assert alarms(rows + guessing[:-1], Config()) == []
    (alarm,) = alarms(rows + guessing, Config())
    assert alarm.kind == "chance"
    assert "--discriminator.width" in alarm.text
    # rows of few images that scatter around one half say nothing
    rows += [healthy(20 + n) | {"separation": 0.5 + 0.2 * (-1) ** n} for n in range(20)]
    assert alarms(rows, Config()) == []


def test_a_discriminator_that_never_told_them_apart_has_not_begun_to_guess() -> None:
    assert (
        alarms([{"seen": n, "grad_g": 0.5, "separation": 0.5} for n in range(20)], Config()) == []
    )


def test_losses_without_probabilities_and_new_runs_are_left_alone() -> None:
    rows = [{"seen": n, "grad_g": 0.0, "loss_d": 0.0} for n in range(RECENT + 2)]
    assert alarms(rows, Config()) == []
    assert alarms([], Config()) == []
    # a generator that has not begun to make different pictures has not collapsed
    start = [healthy(n) | {"spread_fake": 0.02} for n in range(20)]
    assert alarms(start, Config()) == []
    # nor has one whose first samples wavered between alike and a little less so
    wavering = [healthy(n) | {"spread_fake": 0.03} for n in range(10)]
    wavering += [healthy(n) | {"spread_fake": 0.012} for n in range(10)]
    assert alarms(wavering, Config()) == []


@pytest.mark.parametrize("preset", ["projected64", "shells64", "dcgan64", "began64", "mmd64"])
@pytest.mark.parametrize("kind", BAD)
def test_remedies_are_possible(kind: str, preset: str) -> None:
    config = resolve(preset, {})
    rows = [healthy(number) for number in range(20)]
    rows += [healthy(20 + number) | BAD[kind][0] for number in range(RECENT)]
    (alarm,) = alarms(rows, config)
    assert "; try " in alarm.text
    for remedy in alarm.remedies:
        for key, value in re.findall(r"--([\w.]+) ([^\s)]+)", remedy):
            assert resolve(preset, {key: value}) != config
    assert ("--loss.r1 1" in alarm.text) == (preset in ("dcgan64", "mmd64", "projected64"))

"""Rules that end a run: when they apply; the run ends in order and goes on without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.training_runs import metrics
from training.monitoring.monitors import stop_reason
from training.options.algorithm import StopOptions

CHANCE = StopOptions(chance_kimg=10.0)
LOSS = StopOptions(loss_kimg=10.0)


def rows(name: str, *values: float) -> list[dict[str, Any]]:
    """One row per thousand images."""
    return [{"seen": 1000 * (n + 1), name: value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("options", "name", "values", "stops"),
    [
        (CHANCE, "separation", [0.8] * 6 + [0.5, 0.51] * 5, True),
        (CHANCE, "separation", [0.8] * 6 + [0.5, 0.51] * 4, False),  # not for long enough
        (CHANCE, "separation", [0.5] * 30, False),  # it has not learned yet
        (CHANCE, "separation", [0.8] * 6 + [0.3, 0.7] * 5, False),  # too few images to say
        (CHANCE, "separation", [0.5, 0.51] * 5 + [0.8] * 6, False),
        (StopOptions(), "separation", [0.8] * 6 + [0.5, 0.51] * 5, False),
        (LOSS, "loss_d", [0.9] + [0.004] * 10, True),
        (LOSS, "loss_d", [0.9] + [0.004] * 9, False),
        (LOSS, "loss_d", [0.9] + [0.004] * 5 + [0.02] + [0.004] * 4, False),
        (LOSS, "loss_d", [-3.0] * 20, False),  # a loss without a lower bound
        (StopOptions(loss_kimg=10.0, loss=0.1), "loss_d", [0.9] + [0.05] * 10, True),
        (StopOptions(loss_kimg=3.0), "loss_d", [0.9] + [0.004] * 10, False),  # three rows
    ],
)
def test_a_rule_applies_to_a_sign_that_lasts(
    options: StopOptions, name: str, values: list[float], stops: bool
) -> None:
    reason = stop_reason(rows(name, *values), options)
    assert bool(reason) == stops
    assert ("stop." in reason) == stops


def test_blocks_leave_rows_without_the_value() -> None:
    found = rows("loss_d", 0.9, *[0.004] * 10)
    between = [{"seen": row["seen"] + 500, "loss_g": 1.0} for row in found]
    mixed = sorted([*found, *between], key=lambda row: row["seen"])
    assert stop_reason(mixed, LOSS)


def test_a_run_ends_in_order_and_goes_on_without_the_rule(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    shards, run = small_shards(), tmp_path / "work" / "runs" / "one"
    # any loss is below 100, so the rule applies as soon as the run is older than it asks for
    rule = ("--stop.loss_kimg", "0.1", "--stop.loss", "100")
    assert in_process(run, shards, *rule) == 0
    out = capfd.readouterr().out
    assert "stopped: for 0.1 kimg the discriminator's loss has been below 100" in out
    assert "stop.loss_kimg); state saved, without that option it continues (0.128 kimg)" in out
    stopped = metrics(run)
    assert stopped[-1]["seen"] == 128  # the first row more than 100 images after the first one
    assert in_process(run, shards, *rule) == 0  # still true: no step is taken
    assert "(0.128 kimg)" in capfd.readouterr().out
    assert in_process(run, shards) == 0
    assert "resuming at 0.128 kimg" in capfd.readouterr().out
    assert in_process(run.parent / "whole", shards) == 0
    assert metrics(run) == metrics(run.parent / "whole")

"""The burn-in's schedules: the cosine, and that each of its values arrives where it counts."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.contract import parse_config
from training import ema
from training.config import Config
from training.data import Batch
from training.networks import ImageShape
from training.optimizer import burn_in_value
from training.options.algorithm import BurnInOptions
from training.state import State, new_state
from training.step import Step

CPU = torch.device("cpu")
TABLE = {"kimg": 0.032, "lr": 0.25, "penalty": 0.1, "beta2": 0.99, "ema": True}


def test_half_a_cosine_and_then_the_end() -> None:
    table = BurnInOptions(kimg=20000)
    for share, expected in (
        (0, 2.0),
        (1 / 3, 1.55),
        (1 / 2, 1.1),
        (2 / 3, 0.65),
        (1, 0.2),
        (3, 0.2),
    ):
        assert burn_in_value(table, 2.0, 0.2, round(2e7 * share)) == pytest.approx(
            expected, rel=1e-6
        )
    assert burn_in_value(BurnInOptions(), 2.0, 0.2, 10**6) == 2.0


def started(burn_in: dict[str, object], seen: int = 0) -> tuple[State, Step]:
    config = parse_config(
        Config,
        {
            "batch": 8,
            "generator": {"width": 4, "z_dim": 8},
            "discriminator": {"width": 4, "norm": "none"},
            "loss": {"name": "rsgan", "r1": 2.0},
            "g_optimizer": {"lr": 1e-3, "beta2": 0.9},
            "d_optimizer": {"lr": 2e-3, "beta2": 0.9, "decay_kimg": 0.064},
            "burn_in": burn_in,
            "ema": {"half_life_kimg": 0.5, "ramp_up": 0.0},
        },
        "test",
    )
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    state.seen = seen
    return state, Step(config, state, CPU)


def shown(step: Step) -> None:
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    step([Batch(images, torch.zeros(8, dtype=torch.int64))])


@pytest.mark.parametrize(("seen", "share"), [(0, 1.0), (8, 0.5 + 0.5**1.5), (16, 0.5), (32, 0.0)])
def test_rates_and_second_moments_follow(seen: int, share: float) -> None:
    """`share` is what is left of the way at `seen` of 32 images."""
    state, step = started(TABLE, seen)
    shown(step)
    lr = 0.25 + 0.75 * share
    generator, discriminator = state.g_optimizer.param_groups[0], state.d_optimizer.param_groups[0]
    assert generator["lr"] == pytest.approx(1e-3 * lr)
    assert discriminator["lr"] == pytest.approx(2e-3 * lr * (1 - seen / 64))
    for group in (generator, discriminator):
        assert group["betas"] == pytest.approx((0.5, 0.99 - 0.09 * share))


def test_penalties_weigh_less() -> None:
    _, step = started(TABLE, 16)
    assert step.loss.penalty_weight("r1") == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    _, step = started({}, 16)
    assert step.loss.penalty_weight("r1") == 2.0


def test_the_average_s_half_life_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    decay = ema.ema_decay

    def spy(half_life: float, *rest: float) -> float:
        found.append(half_life)
        return decay(half_life, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ema, "ema_decay", spy)
    _, step = started(TABLE)
    for _ in range(5):
        shown(step)
    expected = [0.5 * (1 - math.cos(math.pi * min(1, n / 4))) / 2 for n in range(1, 6)]
    assert found == pytest.approx(expected)

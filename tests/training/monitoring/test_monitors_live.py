"""The monitors on real trainings: one whose discriminator wins, one whose gradient vanishes, one
that collapses, a sound one.

Tiny networks on 16 px images; all draws are seeded, so the rows are the same each time.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.data import Batch
from training.monitoring.meter import Meter
from training.monitoring.monitors import alarms
from training.networks import ImageShape
from training.options.resolve import resolve
from training.state import new_state
from training.step import Step

CPU = torch.device("cpu")
PLAIN = {"generator.norm": "none", "generator.init": "default", "discriminator.norm": "none"}


def flat(count: int) -> torch.Tensor:
    """One random colour each, and a little noise."""
    random = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (count, 3, 1, 1), generator=random)
    grain = torch.randint(-10, 10, (count, 3, 16, 16), generator=random)
    return (colours + grain).clamp(0, 255).to(torch.uint8)


def squares(count: int) -> torch.Tensor:
    """Noise of a random shade with a square of a random colour somewhere."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(60, 140, (count, 3, 16, 16), generator=random)
    for image in images:
        row, column = torch.randint(0, 12, (2,), generator=random).tolist()
        image += torch.randint(-60, 60, (3, 1, 1), generator=random)
        image[:, row : row + 5, column : column + 5] = torch.randint(
            0, 256, (3, 1, 1), generator=random
        )
    return images.clamp(0, 255).to(torch.uint8)


def told(steps: int, images: torch.Tensor, options: dict[str, str]) -> dict[str, str]:
    """What the monitors say in a training of so many steps, a row every four, by kind."""
    config = resolve("dcgan64", {
        "batch": "8", "generator.width": "4", "discriminator.width": "4", "generator.z_dim": "8",
        "resolution": "16", "precision": "fp32",
    } | options)  # fmt: skip
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    step, meter = Step(config, state, CPU), Meter()
    random = torch.Generator().manual_seed(1)
    rows: list[dict[str, Any]] = []
    found: dict[str, str] = {}
    for number in range(steps):
        some = torch.randint(len(images), (8,), generator=random)
        meter.add(step([Batch(images[some], torch.zeros(8, dtype=torch.int64))]))
        if number % 4 == 3:
            rows.append({"seen": state.seen} | meter.means())
            for alarm in alarms(rows[-200:], config):
                found.setdefault(alarm.kind, alarm.text)
    return found


@pytest.mark.slow
def test_a_sound_training_is_left_alone() -> None:
    assert told(150, squares(400), {}) == {}


@pytest.mark.slow
def test_a_discriminator_that_learns_alone_wins() -> None:
    found = told(80, squares(400), {"g_optimizer.lr": "1e-6", "d_optimizer.lr": "2e-3"})
    assert set(found) == {"discriminator"}
    assert "--label_real 0.9" in found["discriminator"]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["hinge", "wgan", "lsgan", "rahinge", "rsgan"])
def test_a_discriminator_that_learns_alone_wins_with_every_kind_of_loss(loss: str) -> None:
    options = {"g_optimizer.lr": "1e-6", "d_optimizer.lr": "2e-3", "loss.name": loss}
    if loss == "wgan":
        options |= {"discriminator.spectral": "true"}
    found = told(80, squares(400), options)
    assert set(found) == {"discriminator"}
    assert "score above fakes" in found["discriminator"]


@pytest.mark.slow
def test_a_saturated_minimax_loses_its_gradient_and_the_remedy_keeps_it() -> None:
    """Goodfellow 2014, section 3: log(1 − D(G(z))) saturates where D is sure, −log D(G(z)) not."""
    options = PLAIN | {"discriminator.init": "default"}
    options |= {"g_optimizer.lr": "1e-5", "d_optimizer.lr": "1e-2"}
    found = told(240, squares(400), options | {"loss.name": "minimax"})
    assert set(found) == {"discriminator", "gradient"}
    assert "--loss.name non-saturating" in found["gradient"]
    found = told(240, squares(400), options | {"loss.name": "non-saturating"})
    assert set(found) == {"discriminator"}


@pytest.mark.slow
def test_a_generator_that_outruns_its_discriminator_collapses() -> None:
    options = {"g_optimizer.lr": "1e-2", "d_optimizer.lr": "5e-4"}
    found = told(200, flat(400), PLAIN | {"discriminator.init": "default"} | options)
    assert set(found) == {"collapse"}
    assert "mode collapse" in found["collapse"]

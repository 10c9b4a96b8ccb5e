"""Each loss in the trainer's own step draws the fakes to the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.losses import LOSSES
from training.networks import ImageShape
from training.state import State, new_state
from training.step import Step

CPU = torch.device("cpu")
OPTIONS = {
    "magan": {"margin_kimg": 0.3},
    "fisher": {"constraint_rate": 1e-3},
    "began": {"balance_rate": 0.02},
}
SLOW = "ra", "began", "cramer", "mmd"


def edges(seed: int, count: int) -> Batch:
    """An edge at a random height between two colours."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.arange(16)[:, None] + torch.randint(-4, 5, (count, 1, 1), generator=random)
    light = ((rows > 8) * 200 + 20).expand(count, 16, 16)
    images = torch.stack([light, torch.full_like(light, 40), 255 - light], dim=1)
    return Batch(images.to(torch.uint8), torch.zeros(count, dtype=torch.int64))


def distance(state: State, mean: Tensor) -> float:
    """Between the mean fake and the mean image: root of the mean square over the pixels."""
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(256, state.generator.z_dim, generator=random)
    with torch.no_grad():
        fakes = state.generator.train()(latents, torch.zeros(256, dtype=torch.int64))
    return (fakes.mean(dim=0) - mean).square().mean().sqrt().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_loss_trains(name: str) -> None:
    """After 150 steps a quarter to a half of the distance was left."""
    kind = LOSSES[name]
    discriminator = {"width": 8, "norm": "none"}
    discriminator |= {"name": "autoencoder", "code": 8} if kind.energy else {}
    # without biases, the critic of Cramér GAN hardly begins to learn
    vector = {"outputs": 8, "bias": True, "init": "orthogonal"}
    discriminator |= vector if kind.vector or name == "fisher" else {}
    discriminator |= {"outputs": 1} if name == "fisher" else {}
    config = parse_config(
        Config,
        {
            "batch": 16, "g_optimizer": {"lr": 2e-3}, "d_optimizer": {"lr": 2e-3},
            "generator": {"width": 8, "z_dim": 8},
            "discriminator": discriminator,
            "loss": {"name": name, "gp": 10 if kind.unbounded else 0, **OPTIONS.get(name, {})},
        },
        "test",
    )  # fmt: skip
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    step = Step(config, state, CPU)
    mean = edges(10**6, 256).images.float().mean(dim=0) / 127.5 - 1
    before = distance(state, mean)
    for _ in range(150 if name.startswith(SLOW) else 80):  # these begin slowly
        step([edges(state.seen, config.batch)])
    assert distance(state, mean) < 0.7 * before

"""Losses on vectors against sums over pairs, written out from the papers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from scipy.stats import energy_distance
from torch import Tensor

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.losses import LOSSES, separation
from training.networks import ImageShape
from training.state import new_state
from training.step import Step

VECTORS = [name for name, one in LOSSES.items() if one.vector]
Vector = Sequence[float]
Kernel = Callable[[Vector, Vector], float]


def drawn(seed: int, count: int = 6, size: int = 3) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).double()


REAL, FAKE = drawn(0) + 0.5, drawn(1, count=5) * 2


def squared(a: Vector, b: Vector) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def apart(a: Vector, b: Vector) -> float:
    return math.sqrt(squared(a, b))


def mixture(a: Vector, b: Vector) -> float:
    return math.fsum(math.exp(-squared(a, b) / (2 * sigma**2)) for sigma in (1, 2, 4, 8, 16))


def gaussian(a: Vector, b: Vector) -> float:
    return math.exp(-squared(a, b) / 2)


def within(kernel: Kernel, rows: Tensor) -> float:
    pairs = [kernel(*pair) for pair in itertools.permutations(rows.tolist(), 2)]
    return math.fsum(pairs) / len(pairs)


def across(kernel: Kernel, rows: Tensor, others: Tensor) -> float:
    pairs = [kernel(*pair) for pair in itertools.product(rows.tolist(), others.tolist())]
    return math.fsum(pairs) / len(pairs)


def mmd(kernel: Kernel) -> float:
    return within(kernel, REAL) + within(kernel, FAKE) - 2 * across(kernel, REAL, FAKE)


def length(rows: Tensor) -> float:
    return math.fsum(apart(row, [0.0] * len(row)) for row in rows.tolist()) / len(rows)


def means_apart() -> float:
    return apart(REAL.mean(dim=0).tolist(), FAKE.mean(dim=0).tolist())


def by_formula(name: str) -> tuple[float, float]:
    """The discriminator's loss and the generator's."""
    match name:
        case "mmd":
            return -mmd(mixture), mmd(mixture)
        case "mmd-repulsive":
            real = within(lambda a, b: math.exp(-min(squared(a, b), 4) / 2), REAL)
            fake = within(lambda a, b: math.exp(-max(squared(a, b), 0.25) / 2), FAKE)
            return real - fake, mmd(gaussian)
        case "cramer":
            on_real = across(apart, REAL, FAKE) - length(REAL)
            on_fake = within(apart, FAKE) - length(FAKE)
            return on_fake - on_real, 2 * across(apart, REAL, FAKE) - within(apart, FAKE)
        case "mcgan":
            return -means_apart(), means_apart()
    raise KeyError(name)


@pytest.mark.parametrize("name", VECTORS)
def test_losses_are_the_formulas(name: str) -> None:
    loss = LOSSES[name]
    found = loss.d(REAL, FAKE, 1.0, 0.0).item(), loss.g(REAL, FAKE).item()
    assert found == pytest.approx(by_formula(name), rel=1e-5)


def test_cramer_of_one_output_is_the_energy_distance() -> None:
    """With pairs of a sample with itself, as scipy has them, and the part of the real images."""
    real, fake = REAL[:, 0], FAKE[:, 0]
    count = len(fake)
    whole = LOSSES["cramer"].g(real, fake).item() - within(apart, real[:, None]) * 5 / 6
    whole += within(apart, fake[:, None]) * (1 - (count - 1) / count)
    assert whole == pytest.approx(energy_distance(real.numpy(), fake.numpy()) ** 2, rel=1e-5)


@pytest.mark.parametrize("name", VECTORS)
def test_no_sample_is_compared_with_itself(name: str) -> None:
    """The score of a sample is that by a batch without it."""
    loss = LOSSES[name]
    assert loss.critic is not None
    real, fake = loss.scores(REAL, FAKE)
    if name == "mcgan":  # the score is linear in the sample
        unit = (REAL.mean(dim=0) - FAKE.mean(dim=0)) / means_apart()
        torch.testing.assert_close(torch.cat([real, fake]), torch.cat([REAL, FAKE]) @ unit)
        return
    for number in range(5):
        others = torch.arange(5) != number
        alone = loss.critic(FAKE[number, None], REAL, FAKE[others])
        torch.testing.assert_close(fake[number], alone[0])
        if name != "cramer":
            rest = torch.arange(6) != number
            alone = loss.critic(REAL[number, None], REAL[rest], FAKE)
            torch.testing.assert_close(real[number], alone[0])


@pytest.mark.parametrize("name", VECTORS)
def test_generator_s_gradient_is_that_of_the_formula(name: str) -> None:
    fake = FAKE.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda values: LOSSES[name].g(REAL, values), (fake,))
    both = REAL.clone().requires_grad_(True), fake
    assert torch.autograd.gradcheck(lambda *some: LOSSES[name].d(*some, 1.0, 0.0), both)


@pytest.mark.parametrize("name", VECTORS)
def test_equal_vectors_and_one_sample_give_finite_gradients(name: str) -> None:
    loss = LOSSES[name]
    for rows in (torch.ones(4, 3), torch.zeros(4, 3), torch.full((1, 3), 1e4), torch.zeros(4)):
        real, fake = (rows.clone().requires_grad_(True) for _ in range(2))
        total = loss.d(real, fake, 1.0, 0.0) + loss.g(real, fake)
        for values in (total, *torch.autograd.grad(total, [real, fake])):
            assert values.isfinite().all()
        assert all(one.isfinite().all() for one in loss.scores(real, fake))


@pytest.mark.parametrize("name", VECTORS)
def test_a_step_down_the_discriminator_s_loss_tells_images_apart(name: str) -> None:
    real = (drawn(3, 32) * 0.1 + 0.03).requires_grad_(True)
    fake = (drawn(4, 32) * 0.1).requires_grad_(True)
    loss, before = LOSSES[name], separation(*LOSSES[name].scores(real, fake))
    for _ in range(30):
        slopes = torch.autograd.grad(loss.d(real, fake, 1.0, 0.0), [real, fake])
        with torch.no_grad():
            real -= slopes[0]
            fake -= slopes[1]
    assert separation(*loss.scores(real, fake)) > before


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("penalty", ["gp", "dragan", "r1", "r2"])
def test_penalties_limit_the_gradient_of_the_critic(name: str, penalty: str) -> None:
    """As by numerical differences of the critic's score, with the vectors of the step."""
    options = {
        "batch": 4, "channels_last": False, "generator": {"width": 2, "z_dim": 2},
        "discriminator": {"width": 2, "norm": "none", "outputs": 3},
        "loss": {"name": name, "r1": 1.0, penalty: 1.0},
    }  # fmt: skip
    state = new_state(parse_config(Config, options, "test"), ImageShape(16, 16, 1), CPU)
    for network in (state.generator, state.discriminator):
        network.double()
    for weight in state.discriminator.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    step = Step(parse_config(Config, options, "test"), state, CPU)
    random = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(4, 1, 16, 16, generator=random).double() for _ in range(2))
    labels = torch.zeros(4, dtype=torch.int64)
    step.random.manual_seed(5)
    parts = list(step.loss.discriminator(real, fake, (labels, labels), torch.zeros(4, 2)))
    told = parts[0][1] | parts[-1][1]
    assert told[penalty].isfinite()
    if penalty not in ("r1", "r2"):
        return
    critic = LOSSES[name].critic
    assert critic is not None
    outputs = [state.discriminator(images, labels).logits.detach() for images in (real, fake)]
    images = (real if penalty == "r1" else fake).flatten(1)
    total = 0.0
    for direction in torch.eye(256).double():
        ends = [
            critic(
                state.discriminator((images + way * direction).view(4, 1, 16, 16), labels).logits,
                *outputs,
                "real" if penalty == "r1" else "fake",
            ).detach()
            for way in (1e-4, -1e-4)
        ]
        total += float((((ends[0] - ends[1]) / 2e-4) ** 2).mean() / 2)
    assert float(told[penalty]) == pytest.approx(total, rel=1e-3)


CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", VECTORS)
def test_micro_batches_compare_their_own_samples(name: str, precision: str) -> None:
    options = {
        "batch": 8, "micro_batch": 4, "generator": {"width": 2, "z_dim": 2}, "precision": precision,
        "discriminator": {"width": 2, "norm": "none", "outputs": 3},
        "loss": {"name": name, "gp": 1.0},
    }  # fmt: skip
    config = parse_config(Config, options, "test")
    state = new_state(config, ImageShape(16, 16, 1), CPU)
    step = Step(config, state, CPU)
    images = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)
    stats = step([Batch(images, torch.zeros(8, dtype=torch.int64))])
    assert all(value.isfinite() for value in stats.values())
    assert 0 <= stats["separation"] <= 1

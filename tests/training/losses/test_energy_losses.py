"""Losses on the errors of an autoencoder against the papers' formulas, and the numbers that losses
adapt against the papers' algorithms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.losses import LOSSES, LossNumbers, pulling_away
from training.machine.distributed import SINGLE_PROCESS
from training.networks import ImageShape, build_discriminator
from training.networks.attention import SelfAttention
from training.options.algorithm import LossOptions
from training.options.architectures import AutoencoderDiscriminator
from training.state import State, new_state
from training.step import Step

CPU = torch.device("cpu")
REAL, FAKE = torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.7, 0.9])
"""Errors; logits are minus these."""


def test_losses_are_the_formulas() -> None:
    def losses(name: str, **numbers: float) -> tuple[float, float]:
        loss = LOSSES[name]
        found = loss.d(-REAL, -FAKE, 1.0, 0.0, numbers), loss.g(-REAL, -FAKE, numbers)
        return found[0].item(), found[1].item()

    margins = 0.2 + (0.5 - 0.2) / 3
    assert losses("ebgan", margin=0.5) == pytest.approx((margins, 0.6))
    assert losses("magan", margin=0.5) == pytest.approx((margins, 0.6))
    assert losses("magan", margin=0.0) == pytest.approx((0.2, 0))  # the first images: E(x) alone
    assert losses("began", balance_k=0.4) == pytest.approx((0.2 - 0.4 * 0.6, 0.6))


def test_pulling_away_is_the_mean_square_cosine_of_pairs() -> None:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    squares = [
        (float(a @ b) / (a.norm() * b.norm()).item()) ** 2
        for a, b in itertools.permutations(rows, 2)
    ]
    found = pulling_away(rows.view(5, 2, 2)).item()
    assert found == pytest.approx(math.fsum(squares) / len(squares), rel=1e-5)
    assert pulling_away(torch.eye(3)).item() == 0
    assert pulling_away(torch.ones(3, 4)).item() == pytest.approx(1)
    assert pulling_away(torch.zeros(3, 4)).item() == 0


def followed(options: LossOptions, told: str, *batches: tuple[float, float]) -> list[float]:
    """The number of each step, and the one after the last, for means of logits."""
    numbers, scalars = LossNumbers(options, 10, SINGLE_PROCESS), dict[str, torch.Tensor]()
    found, last = [], torch.zeros(())
    for real, fake in batches:
        numbers.given(scalars, CPU)
        stats = {"logit_real": torch.tensor(real), "logit_fake_before": torch.tensor(fake)}
        stats["constraint"] = torch.tensor(real)
        found.append(numbers.observe(scalars, stats, 1.0)[told].item())
    return [*found, scalars.get(told, last).item()]


def test_the_balance_of_began_is_a_proportional_control() -> None:
    options = LossOptions(name="began", diversity=0.5, balance_rate=0.1)
    errors = [(1.0, 0.2), (1.0, 0.1), (0.4, 0.3), (0.4, 5.0), (9.0, 0.1), (90.0, 0.1)]
    expected = [0.0]
    for real, fake in errors:
        expected.append(min(1, max(0, expected[-1] + 0.1 * (0.5 * real - fake))))
    assert followed(options, "balance_k", *((-r, -f) for r, f in errors)) == pytest.approx(expected)
    assert expected[-1] == 1
    measures = [real + abs(0.5 * real - fake) for real, fake in errors]
    found = followed(options, "convergence", *((-r, -f) for r, f in errors[:1]))[:1]
    assert found == pytest.approx(measures[:1])


def test_the_multiplier_of_fisher_follows_the_constraint() -> None:
    options = LossOptions(name="fisher", constraint_rate=0.1)
    found = followed(options, "lambda", (3.0, 0.0), (0.5, 0.0))
    assert found == pytest.approx([0.0, 0.2, 0.2 - 0.05])


def test_numbers_do_not_follow_an_overflow() -> None:
    options = LossOptions(name="fisher", constraint_rate=0.1)
    assert followed(options, "lambda", (3.0, 0.0), (math.nan, 0.0), (math.inf, 0.0))[-1] == (
        pytest.approx(0.2)
    )


def test_the_margin_of_magan_falls_when_the_generator_stagnates() -> None:
    """Two batches are an interval; the paper's algorithm 1, interval by interval."""
    options = LossOptions(name="magan", margin_kimg=0.02)
    intervals = [(0.5, 2.0), (0.4, 3.0), (0.3, 2.5), (0.35, 2.6), (0.45, 2.7), (0.2, 0.1)]
    margins, before = [0.5], 2.0  # the first interval gives the first margin
    for real, fake in intervals[1:]:
        lower = real < margins[-1] and real < fake and before <= fake
        margins.append(real if lower else margins[-1])
        before = fake
    assert margins == [0.5, 0.4, 0.4, 0.35, 0.35, 0.35]
    batches = [(-(real + way), -(fake - way)) for real, fake in intervals for way in (0.05, -0.05)]
    found = followed(options, "margin", *batches)
    assert found[0:2] == [0, 0]
    assert found[2::2] == pytest.approx(margins)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_logit_is_minus_the_mean_error(distance: str) -> None:
    options = {
        "loss": {"name": "began"},
        "discriminator": {"name": "autoencoder", "width": 4, "code": 6, "distance": distance},
    }  # fmt: skip
    shape = ImageShape(16, 32, 3)
    network = build_discriminator(parse_config(Config, options, "t").discriminator, shape)
    images = torch.randn(5, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(5, dtype=torch.int64)
    output = network(images, labels)
    apart = images - network.decoder(output.features, labels)  # type: ignore[operator]
    errors = (apart.abs() if distance == "l1" else apart**2).flatten(1).mean(dim=1)
    torch.testing.assert_close(output.logits, -errors)
    assert output.features.shape == (5, 6)
    assert output.logits.dtype == torch.float32


def test_attention_at_the_smallest_maps_is_in_the_encoder_alone() -> None:
    """As in checkpoints of earlier versions."""
    for height, decoder in ((4, 0), (8, 1)):
        options = AutoencoderDiscriminator(width=4, code=6, attention=height)
        network: Any = build_discriminator(options, ImageShape(16, 16, 3))
        layers = [
            sum(isinstance(layer, SelfAttention) for layer in part.modules())
            for part in (network.hidden, network.decoder)
        ]
        assert layers == [1, decoder]


def trained(name: str, steps: int, state: State | None = None, **more: object) -> State:
    """A run whose images get a little darker with each step."""
    options = {
        "batch": 8, "generator": {"width": 4, "z_dim": 4, "norm": "none"},
        "loss": {"name": name, **({"margin_kimg": 0.016} if name == "magan" else {})},
        "discriminator": {"width": 4, "norm": "none"}
        | ({"name": "autoencoder", "code": 4} if LOSSES[name].energy else {}),
        **more,
    }  # fmt: skip
    config = parse_config(Config, options, "test")
    tensors = state.tensors() if state else None
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    if tensors:
        state.load({**tensors, "scalars": {k: v.clone() for k, v in tensors["scalars"].items()}})
    step = Step(config, state, CPU)
    for _ in range(steps):
        random = torch.Generator().manual_seed(state.seen)
        images = torch.randint(0, 256 - state.seen, (8, 3, 16, 16), generator=random)
        step([Batch(images.to(torch.uint8), torch.zeros(8, dtype=torch.int64))])
    return state


@pytest.mark.parametrize("name", ["fisher", "began", "magan"])
def test_numbers_continue_exactly_and_do_not_depend_on_micro_batches(name: str) -> None:
    whole, parts = trained(name, 5), trained(name, 2, trained(name, 3))
    early, split = trained(name, 3), trained(name, 3, micro_batch=3)
    assert whole.scalars.keys() == parts.scalars.keys() == split.scalars.keys()
    assert any(float(value) for value in whole.scalars.values())
    for key, value in whole.scalars.items():
        assert torch.equal(value, parts.scalars[key]), key
        if name != "fisher":  # whose loss is that of each micro-batch's second moments
            torch.testing.assert_close(split.scalars[key], early.scalars[key])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["fisher", "ebgan", "began", "magan"])
def test_half_precision_trains(name: str, precision: str) -> None:
    state = trained(name, 3, precision=precision)
    assert state.is_finite()
    assert all(value.isfinite() for value in state.scalars.values())


def test_magan_s_generator_waits_for_the_first_margin() -> None:
    first = new_state(
        parse_config(Config, {"generator": {"width": 4, "z_dim": 4, "norm": "none"}}, "test"),
        ImageShape(16, 16, 3),
        CPU,
    )
    weights = [weight.detach().clone() for weight in first.generator.parameters()]
    for steps, moved in ((1, False), (2, True)):
        now = trained("magan", steps).generator.parameters()
        changed = any(not torch.equal(one, other) for one, other in zip(weights, now, strict=True))
        assert changed == moved

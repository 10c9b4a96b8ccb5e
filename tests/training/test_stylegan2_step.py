"""StyleGAN2 in the trainer's step: path lengths, lazy penalties, the moving average."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contract import UserError, parse_config
from training import ema
from training.config import Config
from training.data import Batch
from training.losses import path_lengths, path_penalty, squared_gradient
from training.networks import ImageShape
from training.networks.stylegan2 import StyleGan2G
from training.optimizer import lazy_adam_settings, optimizers
from training.options.validation import check_compatible
from training.state import new_state
from training.step import Step

CPU = torch.device("cpu")
SHAPE = ImageShape(16, 16, 3)


def configuration(**options: Any) -> Config:
    networks = {"name": "stylegan2", "channel_base": 64, "channel_max": 8}
    loss = {"r1": 1.0, "interval": 4, "own_step": True, "path_length": 2.0, "path_interval": 2}
    adam = {"lr": 2e-3, "beta1": 0.0, "beta2": 0.99}
    tables = {
        "batch": 8, "g_optimizer": adam, "d_optimizer": adam, "discriminator": networks,
        "generator": {**networks, "z_dim": 6, "w_dim": 5, "mapping_layers": 2},
    }  # fmt: skip
    return parse_config(
        Config, {**tables, "loss": loss | options.pop("loss", {}), **options}, "test"
    )


def trained(config: Config, steps: int) -> tuple[Step, list[dict[str, Tensor]]]:
    step = Step(config, new_state(config, SHAPE, CPU), CPU)
    facts = []
    for _ in range(steps):
        random = torch.Generator().manual_seed(step.state.seen)
        images = torch.randint(0, 256, (8, 3, 16, 16), generator=random, dtype=torch.uint8)
        facts.append(step([Batch(images, torch.zeros(8, dtype=torch.int64))]))
    return step, facts


def test_penalties_that_overflow_are_left_out() -> None:
    config = configuration(precision="fp16", loss={"path_interval": 1})
    state = new_state(config, SHAPE, CPU)
    state.d_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    state.g_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    step = Step(config, state, CPU)
    images = torch.full((8, 3, 16, 16), 9, dtype=torch.uint8)
    stats = step([Batch(images, torch.zeros(8, dtype=torch.int64))])
    for name in ("r1", "path_length", "path_penalty"):
        assert stats[name] == step.counts[name] == 0
    assert state.scalars["path_mean"] > 0


def test_the_mean_path_length_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(*given: Any) -> Tensor:
        return path_lengths(*given) * float("inf")

    monkeypatch.setattr("training.step.path_lengths", infinite)
    step, _ = trained(configuration(precision="fp16"), 1)
    assert step.state.scalars["path_mean"] == 0
    assert step.state.is_finite()


def test_path_lengths_are_the_jacobians() -> None:
    """‖Jᵀy‖ with the whole Jacobian of a generator in float64."""
    torch.manual_seed(0)
    generator = new_state(configuration(), ImageShape(8, 8, 1), CPU).generator
    assert isinstance(generator, StyleGan2G)
    generator.double().eval()
    ws = torch.randn(2, generator.num_ws, 5, dtype=torch.float64, requires_grad=True)
    found = path_lengths(generator.synthesis, ws, torch.Generator().manual_seed(1))
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double() / 8
    for number in range(2):
        one = ws[number : number + 1].detach()
        jacobian = torch.autograd.functional.jacobian(generator.synthesis, one)
        product = torch.einsum("chw,chwlk->lk", noise[number], jacobian[0, :, :, :, 0])
        expected = product.square().sum(dim=1).mean().sqrt()
        torch.testing.assert_close(found[number], expected)


def test_the_mean_path_length_moves_by_its_decay() -> None:
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    penalty, mean = path_penalty(lengths, torch.tensor(4.0), 0.25)
    assert mean.item() == 3.5
    assert penalty.item() == pytest.approx(((1 - 3.5) ** 2 + (3 - 3.5) ** 2) / 2)
    assert not mean.requires_grad


def test_r1_is_half_of_gamma_s_factor_by_autograd() -> None:
    config = configuration()
    torch.manual_seed(0)
    discriminator = new_state(config, SHAPE, CPU).discriminator.double()
    images, labels = torch.randn(4, 3, 16, 16).double(), torch.zeros(4, dtype=torch.int64)
    found = squared_gradient(lambda x: discriminator(x, labels).logits, images)
    jacobian = torch.autograd.functional.jacobian(lambda x: discriminator(x, labels).logits, images)
    # the standard deviation over the batch lets each image change the others' logits
    summed = jacobian.sum(dim=0)
    expected = summed.square().sum(dim=(1, 2, 3)).mean() / 2
    torch.testing.assert_close(found, expected.float())


@pytest.mark.slow
def test_penalties_come_at_their_intervals_in_steps_of_their_own() -> None:
    step, facts = trained(configuration(), 8)
    assert [n for n, row in enumerate(facts) if "r1" in row] == [0, 4]
    assert [n for n, row in enumerate(facts) if "path_length" in row] == [0, 2, 4, 6]
    counts = [
        max(int(values["step"]) for values in optimizer.state.values())
        for optimizer in (step.state.g_optimizer, step.state.d_optimizer)
    ]
    assert counts == [8 + 4, 8 + 2]
    _, plain = trained(configuration(loss={"own_step": False}), 5)
    assert [n for n, row in enumerate(plain) if "r1" in row] == [0, 4]


def test_the_mean_path_length_is_part_of_the_state() -> None:
    step, facts = trained(configuration(loss={"path_decay": 0.5}), 3)
    first, second = (facts[n]["path_length"] for n in (0, 2))
    torch.testing.assert_close(step.state.scalars["path_mean"], first * 0.25 + second * 0.5)
    assert step.state.tensors()["scalars"]["path_mean"] is step.state.scalars["path_mean"]


def test_micro_batches_regularise_paths_too() -> None:
    _, facts = trained(configuration(micro_batch=4), 1)
    assert facts[0]["path_length"] > 0
    assert {name for name, value in facts[0].items() if not value.isfinite()} == set()


def test_rates_are_corrected_for_the_steps_of_penalties() -> None:
    """Karras 2020a, appendix B: c = k/(k + 1)."""
    config = configuration()
    table = lazy_adam_settings(config.g_optimizer, 4)
    assert table.lr == pytest.approx(2e-3 * 0.8)
    assert (table.beta1, table.beta2) == (0, pytest.approx(0.99**0.8))
    g_table, d_table = optimizers(config)
    assert g_table == lazy_adam_settings(config.g_optimizer, 2)
    assert d_table == lazy_adam_settings(config.d_optimizer, 4)
    state = new_state(config, SHAPE, CPU)
    assert state.d_optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 * 0.8)
    plain = replace(config, loss=replace(config.loss, own_step=False, path_length=0.0))
    assert optimizers(plain) == (config.g_optimizer, config.d_optimizer)


def test_the_average_copies_what_is_an_average_already() -> None:
    state = trained(configuration(), 2)[0].state
    assert isinstance(state.generator, StyleGan2G)
    assert isinstance(state.g_ema, StyleGan2G)
    state.generator.w_avg.fill_(3.0)
    before = state.g_ema.mapping.fc0.weight.clone()
    state.generator.mapping.fc0.weight.data.add_(1.0)
    ema.MovingAverage(state.g_ema, state.generator).update(0.9)
    assert torch.equal(state.g_ema.w_avg, state.generator.w_avg)
    assert not torch.equal(state.g_ema.mapping.fc0.weight, before)
    torch.testing.assert_close(
        state.g_ema.mapping.fc0.weight, before.lerp(state.generator.mapping.fc0.weight, 0.1)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": {"path_length": 2}}, "loss.path_length"),
        ({"loss": {"own_step": True}}, "loss.own_step: needs a penalty"),
        (
            {"loss": {"own_step": True, "r1": 1, "r2": 1}},
            "loss.own_step: not supported with loss.gp",
        ),
        ({"generator": {"name": "stylegan2"}, "latent": "uniform"}, 'latent: "uniform"'),
    ],
)
def test_meaningless_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_compatible(parse_config(Config, options, "test"))

"""fp16: losses are scaled, what overflows is left out, penalties are computed large enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training.state
from pipeline.contract import UserError
from tests.helpers.training_runs import read_run
from training import checkpoint
from training.data import Batch
from training.losses import gradient_penalty, squared_gradient
from training.monitoring.meter import Meter
from training.networks import ImageShape
from training.optimizer import MIN_LOSS_SCALE, step_was_skipped
from training.options.resolve import resolve
from training.state import State, new_state
from training.step import Step

TINY = {
    "batch": "8", "generator.width": "4", "discriminator.width": "4", "resolution": "16",
    "discriminator.norm": "none", "threads": "1",
}  # fmt: skip


def trained(steps: int = 4, **options: str) -> tuple[State, list[dict[str, Tensor]]]:
    config = resolve("dcgan64", TINY | options)
    state = new_state(config, ImageShape(16, 16, 3), torch.device("cpu"))
    step, told = Step(config, state, torch.device("cpu")), []
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        images = torch.randint(256, (8, 3, 16, 16), generator=random, dtype=torch.uint8)
        told.append(step([Batch(images, torch.zeros(8, dtype=torch.int64))]))
    return state, told


@pytest.mark.parametrize("options", [{}, {"loss.gp": "10"}, {"loss.r1": "1", "micro_batch": "4"}])
def test_trains_as_float32_does_to_rounding(options: dict[str, str]) -> None:
    half, told = trained(precision="fp16", **options)
    _, expected = trained(precision="fp32", **options)
    assert half.g_scaler.get_scale() == 2.0**16  # nothing overflowed
    penalties = [key.removeprefix("loss.") for key in options if key.startswith("loss.")]
    for name in ("grad_d", "grad_g", "loss_d", "loss_g", *penalties):
        for ours, theirs in zip(told, expected, strict=True):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=1e-3)


def test_a_step_that_overflows_is_left_out_and_counted() -> None:
    config = resolve("dcgan64", TINY | {"precision": "fp16"})
    state = new_state(config, ImageShape(16, 16, 3), torch.device("cpu"))
    state.d_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    before = [weight.clone() for weight in state.discriminator.parameters()]
    batch = Batch(
        torch.full((8, 3, 16, 16), 9, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    )
    step = Step(config, state, torch.device("cpu"))
    facts = step([batch])
    assert facts["skipped_d"] == 1
    assert facts["skipped_g"] == 0
    meter = Meter()
    meter.add(facts, step.counts)
    kept = meter.state()
    assert kept["counts"] == {
        name: int(name.endswith(("_g", "_after", "_fake")) or "skip" in name) for name in facts
    }
    assert not {"grad_d", "loss_d", "spread_real"} & meter.means().keys()
    assert state.scalars["skipped_d"] == 1
    assert state.d_scaler.get_scale() == 2.0**29
    assert all(map(torch.equal, before, state.discriminator.parameters()))
    while facts["skipped_d"]:
        facts = step([batch])
        meter.add(facts, step.counts)
        assert all(value.isfinite() for value in facts.values())
    assert state.scalars["skipped_d"] > 2
    torch.testing.assert_close(meter.means()["loss_d"], float(facts["loss_d"]))  # of the last one
    assert not all(map(torch.equal, before, state.discriminator.parameters()))


def test_a_skipped_step_leaves_running_statistics_as_they_were() -> None:
    config = resolve("dcgan64", TINY | {"precision": "fp16", "generator.norm": "batch"})
    state = new_state(config, ImageShape(16, 16, 3), torch.device("cpu"))
    step = Step(config, state, torch.device("cpu"))
    hook = state.generator.register_forward_pre_hook(lambda _, given: (given[0] * 1e9, *given[1:]))
    batch = Batch(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    before = {name: one.clone() for name, one in state.buffers().items()}
    assert step([batch])["skipped_g"] == 1
    assert all(torch.equal(one, before[name]) for name, one in state.buffers().items())
    hook.remove()
    assert step([batch])["skipped_g"] == 0
    assert not any(torch.equal(one, before[name]) for name, one in state.buffers().items())


def test_a_scale_that_fell_to_nothing_is_divergence() -> None:
    infinite = torch.tensor(float("inf"))
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    assert step_was_skipped(infinite, scaler)
    assert not step_was_skipped(torch.tensor(3.0), scaler)
    assert not step_was_skipped(
        infinite, torch.amp.GradScaler("cpu", init_scale=MIN_LOSS_SCALE / 2)
    )
    assert not step_was_skipped(infinite, torch.amp.GradScaler("cpu", enabled=False))


def test_penalties_do_not_vanish_where_half_precision_rounds_to_zero() -> None:
    """∇D of a linear critic with weights 1e-9: below the smallest fp16 number, 6e-8."""
    weights = torch.full((8, 12), 1e-9)
    images = torch.ones(8, 3, 2, 2)

    def critic(values: Tensor) -> Tensor:
        return ((values.flatten(1).half() * weights.half().clamp_min(6e-8)) * 2.0**-10).sum(dim=1)

    slope = 6e-8 * 2.0**-10  # in fp16 a product of both is 0
    assert squared_gradient(critic, images) == 0
    scaled = squared_gradient(critic, images, 2.0**16)
    assert float(scaled) == pytest.approx(12 * slope**2 / 2, rel=0.2)
    share = torch.rand(8, 1, 1, 1)
    plain, exact = (
        gradient_penalty(
            lambda values: values.square().sum(dim=(1, 2, 3)), images, images, share, s
        )
        for s in (2.0**12, 1.0)
    )
    torch.testing.assert_close(plain, exact)


def test_a_run_says_how_many_and_goes_on_with_the_scale(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def scaler(config: Any, device: torch.device) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**27, growth_interval=20)

    monkeypatch.setattr(training.state, "make_scaler", scaler)
    shards, runs = small_shards(), tmp_path / "runs"
    half = ("--precision", "fp16", "--record.checkpoint_kimg", "0.08")
    assert in_process(runs / "half", shards, *half, "--total-kimg", "0.16") == 0
    said = capsys.readouterr().out
    assert "NaN" not in said  # what was left out is no divergence
    assert "skipped because fp16 gradients overflowed: " in said
    values, _ = checkpoint.load_newest(runs / "half" / "checkpoints")
    assert values is not None
    assert values["state"]["d_scaler"]["scale"] < 2.0**27
    assert in_process(runs / "half", shards, *half) == 0
    assert in_process(runs / "whole", shards, *half) == 0
    rows, weights = read_run(runs / "half")
    other_rows, other_weights = read_run(runs / "whole")
    assert rows == other_rows
    assert any(0 < row["skipped_d"] <= 1 for row in rows)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_unrolled_steps_are_refused() -> None:
    options = {"unroll.steps": "2", "unroll.lr": "0.1", "precision": "fp16"}
    with pytest.raises(UserError, match="precision: gradients of unrolled steps"):
        resolve("dcgan64", options)

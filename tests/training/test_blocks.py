"""Block-wise alternation: the discriminator alone for some steps, then the generator alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError, parse_config
from tests.helpers.training_runs import read_run
from training.catalogue import gflop_per_image, network_cost
from training.config import Config
from training.data import Batch
from training.networks import ImageShape
from training.optimizer import step_kind, steps_of
from training.options.algorithm import BlockOptions
from training.options.resolve import resolve
from training.planning.forecast import lazy_cycle
from training.state import State, new_state
from training.step import Step

CPU = torch.device("cpu")
SMALL = {
    "batch": "4", "generator.width": "4", "discriminator.width": "4", "generator.z_dim": "8",
    "resolution": "16", "precision": "fp32", "blocks.d_steps": "3", "blocks.g_steps": "2",
}  # fmt: skip


def tensors(state: State, name: str) -> list[torch.Tensor]:
    return [value.clone() for value in getattr(state, name).parameters()]


def changed(state: State, before: dict[str, list[torch.Tensor]]) -> set[str]:
    return {
        name
        for name, old in before.items()
        if not all(map(torch.equal, old, getattr(state, name).parameters()))
    }


@pytest.mark.parametrize("micro_batch", ["0", "2"])
def test_one_network_is_trained_while_the_other_does_not_change(micro_batch: str) -> None:
    config = resolve("dcgan64", {**SMALL, "micro_batch": micro_batch})
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    step, course = Step(config, state, CPU), []
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        before = {name: tensors(state, name) for name in ("generator", "discriminator")}
        images = torch.randint(256, (4, 3, 16, 16), generator=random, dtype=torch.uint8)
        stats = step([Batch(images, torch.zeros(4, dtype=torch.int64))])
        (trained,) = changed(state, before)
        assert ("loss_d" in stats, "loss_g" in stats) == (
            trained == "discriminator", trained == "generator"
        )  # fmt: skip
        course.append(trained[0])
    assert "".join(course) == "dddgg" * 2
    assert (state.seen, state.steps) == (40, 10)


def test_penalties_are_counted_in_the_steps_of_their_network() -> None:
    """With the number of all steps, an interval of 5 would be due in the first D step only."""
    options = {"loss.r1": "1", "loss.interval": "2", "discriminator.norm": "none"}
    config = resolve("dcgan64", SMALL | options)
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    step, due = Step(config, state, CPU), []
    for _ in range(10):
        images = torch.zeros((4, 3, 16, 16), dtype=torch.uint8)
        due.append("r1" in step([Batch(images, torch.zeros(4, dtype=torch.int64))]))
    assert due == [number in (0, 2, 6) for number in range(10)]
    assert lazy_cycle(config) == 10


def test_steps_of_each_network() -> None:
    blocks = BlockOptions(3, 2)
    assert [steps_of("d", blocks, n) for n in range(8)] == [0, 1, 2, 3, 3, 3, 4, 5]
    assert [steps_of("g", blocks, n) for n in range(8)] == [0, 0, 0, 0, 1, 2, 2, 2]
    assert steps_of("g", BlockOptions(), 7) == 7


def test_steps_of_a_kind_have_the_same_penalties_and_networks() -> None:
    def kinds(**options: Any) -> str:
        config = parse_config(Config, options, "test")
        return " ".join(
            "".join(name for name, on in zip("rpd", step_kind(config, steps), strict=True) if on)
            for steps in range(7)
        )

    assert kinds() == "r r r r r r r"
    assert kinds(loss={"r1": 1, "interval": 3}) == "r   r   r"
    lazy = {"r1": 1, "interval": 3, "path_length": 2, "path_interval": 2}
    assert kinds(loss=lazy) == "rp  p r p  rp"
    assert kinds(blocks={"d_steps": 3, "g_steps": 2}) == "rd rd rd r r rd rd"


def test_the_cost_of_an_image_is_that_of_its_block() -> None:
    plain = resolve("dcgan64", {"updates": "alternating", "fresh_latents": "true"})
    equal = resolve("dcgan64", {"blocks.d_steps": "5", "blocks.g_steps": "5"})
    size = network_cost(plain)
    d_update = size.g_gflop + 6 * size.d_gflop
    g_update = 3 * size.g_gflop + 2 * size.d_gflop
    assert gflop_per_image(equal, size) == pytest.approx((d_update + g_update) / 2)


@pytest.mark.parametrize(
    "options",
    [
        {"blocks.g_steps": "0"},
        {"updates": "simultaneous"},
        {"updates": "generator-first"},
        {"n_critic": "2"},
    ],
)
def test_options_that_contradict_blocks_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UserError, match="blocks"):
        resolve("dcgan64", SMALL | options)


def test_a_run_that_ends_within_a_block_goes_on_bit_for_bit(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int]
) -> None:
    shards, folder = small_shards(), tmp_path / "work" / "runs"
    blocks = ("--blocks.d_steps", "3", "--blocks.g_steps", "4", "--ema.half_life_kimg", "0.05")
    assert in_process(folder / "whole", shards, *blocks) == 0
    for kimg in ("0.016", "0.2", "0.4"):  # after 2, 25 and 50 steps
        assert in_process(folder / "parts", shards, *blocks, "--total-kimg", kimg) == 0
    rows, weights = read_run(folder / "whole")
    again, others = read_run(folder / "parts")
    assert rows == again
    assert all(torch.equal(weights[name], others[name]) for name in weights)

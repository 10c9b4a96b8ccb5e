"""Fine-tuning: a run begins with another's weights, some of which stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError, parse_config
from tests.helpers.training_runs import read_run
from training import checkpoint
from training.config import Config
from training.data import Batch
from training.networks import ImageShape, build_discriminator
from training.pretrained.finetune import WeightMismatch, freeze, load_initial_weights
from training.state import new_state
from training.step import Step

SHORT = ("--total-kimg", "0.04", "--generator.width", "4")


def test_a_run_begins_with_another_s_weights(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    shards, folder = small_shards(), tmp_path / "work" / "runs"
    assert in_process(folder / "first", shards, *SHORT) == 0
    _, first = read_run(folder / "first")
    start = ("--init-from", "first", "--freeze-d", "1", "--g_optimizer.lr", "1e-12")
    assert in_process(folder / "second", shards, *SHORT, *start) == 0
    assert "initial weights loaded from first" in "".join(capfd.readouterr())
    _, second = read_run(folder / "second")
    trained = [k for k in first if k.startswith("discriminator.") and k.endswith("weight")]
    kept = [key for key in trained if torch.equal(first[key], second[key])]
    # the layer that sees the image, and its norm
    assert kept == ["discriminator.hidden.0.weight", "discriminator.hidden.1.weight"]
    weights = [k for k in first if k.startswith("generator.") and k.endswith("weight")]
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in weights)
    newest = max((folder / "first" / "checkpoints").glob("*.pt"))
    assert in_process(folder / "third", shards, *SHORT, "--init-from", str(newest), *start[2:]) == 0
    _, third = read_run(folder / "third")
    assert all(torch.equal(second[key], third[key]) for key in second)


def test_a_discriminator_of_pixels_starts_that_of_a_projected_one(tmp_path: Path) -> None:
    pixels = {
        "width": 4, "norm": "none", "bias": True, "minibatch_stddev": 4, "condition": "projection"
    }  # fmt: skip
    projected = {
        "name": "projected", "width": 8, "size": 64, "pixel_width": 4, "pixel_spectral": False,
        "condition": "pixels",
    }  # fmt: skip
    shape, cpu = ImageShape(64, 64, 3, 5), torch.device("cpu")
    first, second = (
        new_state(
            parse_config(
                Config,
                {"generator": {"width": 4, "condition": "norm"}, "discriminator": discriminator},
                "test",
            ),
            shape, cpu,
        )
        for discriminator in (pixels, projected)
    )  # fmt: skip
    checkpoint.save(tmp_path, 0, {"state": first.tensors()}, 1)
    (start,) = tmp_path.glob("*.pt")
    heads = {k: w.clone() for k, w in second.discriminator.discriminators.state_dict().items()}
    found = load_initial_weights(second, str(start), cpu)
    assert found == WeightMismatch(("discriminators on frozen features",), ())
    expected, own = first.discriminator.state_dict(), second.discriminator.pixels.state_dict()
    assert all(torch.equal(own[key], weight) for key, weight in expected.items())
    after = second.discriminator.discriminators.state_dict()
    assert all(torch.equal(after[key], weight) for key, weight in heads.items())


def test_other_networks_and_missing_runs_are_refused(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    shards, folder = small_shards(), tmp_path / "work" / "runs"
    assert in_process(folder / "first", shards, *SHORT) == 0
    for options, said in (
        (("--init-from", "none"), "init_from: none: no complete checkpoint"),
        (("--init-from", "first", "--generator.width", "8"), "init_from: first has another gen"),
        (("--freeze-d", "2"), "freeze_d: without init_from"),
        (("--init-from", "first", "--freeze-d", "9"), "the discriminator has only 2 layers"),
    ):
        capfd.readouterr()
        assert in_process(folder / "second", shards, *SHORT, *options) == 2
        assert said in capfd.readouterr().err


@pytest.mark.parametrize("name", ["dcgan", "mlp", "resnet"])
def test_frozen_layers_are_those_next_to_the_image(name: str) -> None:
    small = {"widths": [8, 8]} if name == "mlp" else {"width": 4}
    table = parse_config(Config, {"discriminator": {"name": name, **small}}, "test").discriminator
    discriminator = build_discriminator(table, ImageShape(32, 32, 3))
    names = [key for key, _ in discriminator.named_parameters()]
    frozen = []
    for count in (0, 1, 2):
        discriminator.requires_grad_(True)
        freeze(discriminator, count)
        frozen.append([k for k, w in discriminator.named_parameters() if not w.requires_grad])
    assert frozen[0] == []
    assert frozen[1] == names[: len(frozen[1])] != []
    assert frozen[2] == names[: len(frozen[2])]
    assert len(frozen[2]) > len(frozen[1])
    assert not any("head" in key for key in frozen[2])
    with pytest.raises(UserError, match="freeze_d"):
        freeze(discriminator, 50)


def test_the_given_average_is_kept_from_the_first_step_on(tmp_path: Path) -> None:
    tables = {
        "generator": {"width": 4, "z_dim": 8}, "discriminator": {"width": 4}, "batch": 8,
        "init_from": str(tmp_path / "0000000040.pt"), "g_optimizer": {"lr": 1e-9},
        "ema": {"half_life_kimg": 0.08, "ramp_up": 0.05}, "burn_in": {"kimg": 1.0, "ema": True},
    }  # fmt: skip
    config, cpu = parse_config(Config, tables, "test"), torch.device("cpu")
    first = new_state(config, ImageShape(16, 16, 3), cpu)
    with torch.no_grad():
        for weight in first.generator.parameters():
            weight.add_(1.0)  # the average is another network
    checkpoint.save(tmp_path, 40, {"state": first.tensors()}, keep=1)
    state = new_state(replace(config, seed=1), ImageShape(16, 16, 3), cpu)
    assert load_initial_weights(state, config.init_from, cpu) == WeightMismatch((), ())
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    Step(config, state, cpu)([Batch(images, torch.zeros(8, dtype=torch.int64))])
    moved = 1 - 0.5 ** (8 / 80)  # by the half-life alone, towards weights that are 1 away
    given = dict(first.g_ema.named_parameters())
    for name, value in state.g_ema.named_parameters():
        torch.testing.assert_close(value - given[name], torch.full_like(value, moved))

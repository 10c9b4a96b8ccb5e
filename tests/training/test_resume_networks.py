"""A checkpoint in the middle changes nothing, whatever networks are trained."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.monitoring.meter import Meter
from training.networks import ImageShape
from training.state import State, new_state
from training.step import Step

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
FASTGAN: dict[str, Any] = {"name": "fastgan", "width": 4, "z_dim": 8}
R3GAN: dict[str, Any] = {"name": "r3gan", "widths": [8], "blocks": [1]}
STYLEGAN2: dict[str, Any] = {"name": "stylegan2", "channel_max": 8}
STYLEGAN3: dict[str, Any] = {
    "name": "stylegan3", "channel_max": 4, "z_dim": 8, "w_dim": 8, "layers": 4, "margin": 4,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "fastgan-l1": {
        "generator": FASTGAN,
        "discriminator": {"name": "fastgan", "width": 4, "reconstruction": "l1"},
        "loss": {"name": "random-hinge"},
    },
    "fastgan-perceptual": {
        "generator": FASTGAN | {"condition": "norm"},
        "discriminator": {"name": "fastgan", "width": 4, "condition": "projection"},
        "loss": {"name": "random-hinge"},
    },
    "projected-fastgan": {
        "generator": FASTGAN | {"lite": True, "condition": "norm"},
        "discriminator": {
            "name": "projected", "width": 8, "size": 64, "condition": "projection",
        },
        "loss": {"name": "hinge", "feature_spread": 5.0},
    },
    "projected-later": {
        "generator": {"width": 4, "z_dim": 8},
        "discriminator": {
            "name": "projected", "width": 8, "size": 64, "norm": "joint", "pixel_width": 4,
            "features_kimg": 0.012,
        },
        "loss": {"name": "non-saturating", "r1": 1.0, "interval": 2, "feature_spread": 5.0},
    },
    "projected-stylegan2": {
        "generator": {
            "name": "stylegan2", "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2,
        },
        "discriminator": {"name": "projected", "width": 8, "size": 64, "separable": True},
        "loss": {"name": "hinge"},
    },
    "cramer": {
        "generator": {"width": 4, "z_dim": 8},
        "discriminator": {"width": 4, "norm": "none", "outputs": 4},
        "loss": {"name": "cramer", "gp": 1.0},
    },
    "magan-half": {
        "generator": {"width": 4, "z_dim": 8},
        "discriminator": {"name": "autoencoder", "width": 4, "norm": "batch"},
        "loss": {"name": "magan", "margin_kimg": 0.004, "pulling_away": 0.1},
        "precision": "bf16",
        "blocks": {"d_steps": 1, "g_steps": 1},
    },
    "r3gan": {
        "generator": R3GAN | {"z_dim": 8, "condition": "embedding"},
        "discriminator": R3GAN | {"condition": "projection"},
        "loss": {"name": "rsgan", "r1": 1.0, "r2": 1.0},
        "burn_in": {"kimg": 0.02, "lr": 0.25, "penalty": 0.1, "beta2": 0.99, "ema": True},
    },
    "stylegan2": {
        "generator": STYLEGAN2 | {"z_dim": 8, "w_dim": 8, "mapping_layers": 2},
        "discriminator": STYLEGAN2,
        "loss": {
            "r1": 1.0, "interval": 3, "own_step": True, "path_length": 2.0, "path_interval": 2,
        },
        "augment": {"ada": "bgc", "ada_interval": 2, "ada_kimg": 0.1},
    },
    "stylegan3": {
        "generator": STYLEGAN3 | {"condition": "embedding", "style_mixing_prob": 0.5},
        "discriminator": STYLEGAN2 | {"condition": "projection"},
        "loss": {"r1": 1.0, "interval": 3, "path_length": 2.0, "path_interval": 2},
        "augment": {"blur": 2.0, "blur_kimg": 0.03},
    },
    "stylegan3-rotation": {
        "generator": STYLEGAN3 | {"equivariance": "rotation"},
        "discriminator": STYLEGAN2,
    },
}  # fmt: skip


def trained(kind: str, steps: int, state: State | None = None) -> State:
    more = {"batch": 4, "augment": {"policy": ["color", "translation"]}}
    config = parse_config(Config, more | KINDS[kind], "test")
    shape = ImageShape(32, 32, 3, 5)
    if state is not None:
        buffer = io.BytesIO()
        torch.save(state.tensors(), buffer)
        buffer.seek(0)
        torch.manual_seed(1234)
        state = new_state(config, shape, CPU)
        for weight in (*state.generator.parameters(), *state.discriminator.parameters()):
            torch.nn.init.normal_(weight)
        state.load(torch.load(buffer, weights_only=True))
    else:
        state = new_state(config, shape, CPU)
    step = Step(config, state, CPU)
    for _ in range(steps):
        random = torch.Generator().manual_seed(state.seen)
        images = torch.randint(0, 256, (4, 3, 32, 32), generator=random, dtype=torch.uint8)
        facts = step([Batch(images, torch.randint(0, 5, (4,), generator=random))])
        assert all(torch.isfinite(value).all() for value in facts.values())
    return state


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_continued_is_uninterrupted(kind: str) -> None:
    whole = trained(kind, 4)
    parts = trained(kind, 2, trained(kind, 2))
    for name in ("generator", "discriminator", "g_ema"):
        expected = getattr(whole, name).state_dict()
        found = getattr(parts, name).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name
    assert whole.scalars.keys() == parts.scalars.keys()
    for name, value in whole.scalars.items():
        assert torch.equal(value, parts.scalars[name]), name


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_what_is_continued_is_where_its_next_step_is() -> None:
    """A checkpoint comes from the CPU, or from another process's device."""
    config = parse_config(Config, KINDS["stylegan2"], "test")
    elsewhere = torch.device("meta")
    state = new_state(config, ImageShape(32, 32, 3, 5), elsewhere)
    tensors = trained("stylegan2", 2).tensors()
    tensors["scalars"] |= {"augment_p": torch.tensor(0.2), "skipped_g": torch.tensor(1.0)}
    tensors["replay"] = {"images": torch.zeros(2, 3, 4, 4), "filled": torch.tensor(2)}
    state.load(tensors)
    kept = {**state.scalars, **state.replay}
    assert {name: value.device.type for name, value in kept.items()} == {
        "path_mean": "meta", "augment_signs": "meta", "augment_earlier": "meta", "images": "meta",
        "augment_p": "cpu", "augment_steps": "cpu", "filled": "cpu", "skipped_g": "meta",
    }  # fmt: skip
    meter = Meter()
    meter.load({"sums": {"r1": torch.tensor(1.0)}, "counts": {"r1": 1}}, elsewhere)
    assert meter.state()["sums"]["r1"].device == elsewhere

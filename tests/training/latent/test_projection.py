"""Finding pictures again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.contract import UserError
from shellgan.images import read_pixels
from training.latent.projection import (
    Schedule,
    noise_correlation,
    noise_inputs,
    pixel_distance,
    project,
    w_std,
)
from training.latent.space import LatentSpace, build_latent_space
from training.networks import ImageShape, build_generator
from training.options.architectures import DcganGenerator, StyleGan2Generator
from training.options.styled import StyleGan3Generator

SHAPE = ImageShape(16, 16, 3)


def made(kind: str) -> LatentSpace:
    torch.manual_seed(0)
    table: Any = DcganGenerator(width=8, z_dim=8)
    if kind == "stylegan2":
        table = StyleGan2Generator(
            channel_base=256, channel_max=16, w_dim=12, z_dim=8, mapping_layers=2
        )
    if kind == "stylegan3":
        table = StyleGan3Generator(
            channel_base=64, channel_max=16, w_dim=12, z_dim=8, layers=4, margin=4
        )
    generator = build_generator(table, SHAPE).eval().requires_grad_(False)
    return build_latent_space(generator, "gaussian", 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dcgan", "stylegan2", "stylegan3"])
@pytest.mark.parametrize("each_layer", [False, True])
def test_a_generated_picture_is_found_again(kind: str, each_layer: bool) -> None:
    space, label = made(kind), torch.zeros(1, dtype=torch.int64)
    latents = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    target = space.synthesize(space.map(latents, label), label)
    weights = {name: value.clone() for name, value in space.generator.state_dict().items()}
    told: list[int] = []
    found = project(
        space, target, pixel_distance, label, Schedule(200), each_layer,
        on_step=lambda step, _: told.append(step),
    )  # fmt: skip
    assert found.distance < 0.1 * found.initial_distance
    assert found.ws.shape == (1, space.num_ws, space.w_dim)
    assert float(pixel_distance(found.image, target)) == pytest.approx(found.distance)
    alike = (found.ws[0] == found.ws[0, 0]).all()
    assert bool(alike) == (not each_layer or space.num_ws == 1)
    assert told == list(range(200))
    after = space.generator.state_dict()
    assert all(torch.equal(weights[name], after[name]) for name in weights)


@pytest.mark.slow
def test_the_perceptual_distance_leads_there_too() -> None:
    from training.latent.projection import choose_distance

    space, label = made("dcgan"), torch.zeros(1, dtype=torch.int64)
    latents = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    target = space.synthesize(space.map(latents, label), label)
    distance = choose_distance("features", space.device)
    found = project(space, target, distance, label, Schedule(25, rate=0.3))
    assert found.distance < 0.6 * found.initial_distance


def test_the_schedule_is_the_published_one() -> None:
    """The lines of the paper's appendix: rise over 50 of 1000 steps, cosine fall over the last 250,
    noise squared to nothing at 750."""
    schedule = Schedule(1000)
    assert schedule.rate_at(0) == 0
    assert schedule.rate_at(25) == pytest.approx(0.05)
    assert schedule.rate_at(50) == schedule.rate_at(750) == pytest.approx(0.1)
    assert schedule.rate_at(875) == pytest.approx(0.05)
    assert schedule.rate_at(999) == pytest.approx(
        0.1 * (0.5 - 0.5 * math.cos(math.pi * 0.004)), rel=1e-6
    )
    assert schedule.noise_at(0, 2.0) == pytest.approx(0.1)
    assert schedule.noise_at(375, 2.0) == pytest.approx(0.025)
    assert schedule.noise_at(750, 2.0) == schedule.noise_at(900, 2.0) == 0


def test_white_noise_is_told_from_a_picture() -> None:
    white = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-1.7, 1.7, 64).expand(64, 64)
    assert noise_correlation(white) < 0.1
    assert noise_correlation(ramp) > 1
    # by hand for one scale: 8 px is not halved
    small = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    across = (small * torch.cat([small[:, -1:], small[:, :-1]], dim=1)).mean()
    down = (small * torch.cat([small[-1:], small[:-1]])).mean()
    assert float(noise_correlation(small)) == pytest.approx(float(across**2 + down**2))


def test_noise_inputs_and_spread() -> None:
    space, label = made("stylegan2"), torch.zeros(1, dtype=torch.int64)
    assert len(noise_inputs(space.generator)) == space.num_ws - 1
    assert noise_inputs(made("dcgan").generator) == []
    assert w_std(made("dcgan"), label) == pytest.approx(math.sqrt(8), rel=0.02)


TARGETS = {
    "transparent": (Image.new("RGBA", (20, 16), (0, 0, 0, 0)), 255),
    "16 bits": (Image.fromarray(np.full((16, 20), 30_000, np.uint16)), 117),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_are_read_as_training_reads_images(kind: str, tmp_path: Path) -> None:
    image, value = TARGETS[kind]
    image.save(tmp_path / "target.png")
    for target in (tmp_path / "target.png", image):
        pixels = read_pixels(target, SHAPE, "crop")
        assert pixels.shape == (16, 16, 3)
        assert np.unique(pixels).tolist() == [value]


def test_images_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.image_files.MOST_BYTES", 20)
    with pytest.raises(UserError, match=r"^image: larger than 0 MiB"):
        read_pixels(Image.new("RGB", (20, 16)), SHAPE, "crop")

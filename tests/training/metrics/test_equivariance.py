"""EQ-T and EQ-R: of images with known signals, of generators that move exactly, and of others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.contract import UserError
from training.metrics.equivariance import (
    band_limit,
    equivariance,
    limited_like_rotated,
    rotated,
    rotation,
    shifted,
)
from training.networks import Generator, ImageShape, build_generator
from training.options.architectures import DcganGenerator

CPU = torch.device("cpu")
SIDE = 32
NO_LABELS = np.zeros(50, dtype=np.int64)


def waves(matrix: Tensor, side: int = SIDE, cycles: float = 3.0) -> Tensor:
    """An image (1, 2, side, side) of two plane waves, whose point p shows what is at matrix · p."""
    steps = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side
    matrix = matrix.double()
    place = torch.stack(
        [steps[None].expand(side, -1), steps[:, None].expand(-1, side), torch.ones(side, side)], -1
    )
    x, y, _ = (place @ matrix.t()).unbind(-1)
    found = [(2 * math.pi * cycles * (x + shift * y) + shift).sin() for shift in (0.3, -1.1)]
    return torch.stack(found)[None]


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, -2.5])
def test_a_rotated_signal_is_its_closed_form(angle: float) -> None:
    found, inside = rotated(waves(torch.eye(3)), angle)
    assert int(inside.sum()) > 100
    wanted = waves(rotation(-angle))
    assert float(((found - wanted) * inside).abs().max()) < 0.03
    same, known = limited_like_rotated(wanted, angle)
    assert float(((same - wanted) * known).abs().max()) < 0.03


def test_a_quarter_turn_keeps_pixels_exactly_where_they_meet() -> None:
    images = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64)
    found, inside = rotated(images, math.pi / 2)
    known, also = limited_like_rotated(torch.rot90(images, -1, (2, 3)), math.pi / 2)
    assert float(((found - known) * inside * also).abs().max()) < 1e-6


def test_the_filter_removes_what_one_of_both_grids_cannot_show() -> None:
    """At 45°, the corners of the spectrum."""
    taps = band_limit(rotation(math.pi / 4)[:2, :2])[3::4, 3::4]
    assert float(taps.sum()) == pytest.approx(1)
    steps = torch.arange(len(taps), dtype=torch.float64) - len(taps) // 2

    def response(across: float, down: float) -> float:
        wave = torch.outer((2 * math.pi * down * steps).cos(), (2 * math.pi * across * steps).cos())
        return float((taps * wave).sum())

    assert response(0.2, 0.0) == pytest.approx(1, abs=0.05)
    corner = math.sqrt(2) / 4  # where the turned square cuts the diagonal: half the amplitude
    assert response(corner, corner) == pytest.approx(0.5, abs=0.05)
    assert abs(response(0.49, 0.49)) < 0.05


def test_a_shift_is_known_where_pixels_come_from_the_image() -> None:
    images = torch.randn(1, 1, 5, 6)
    found, inside = shifted(images, 2, -1)
    assert inside.sum() == 4 * 4
    assert torch.equal(found[0, 0, :4, 2:], images[0, 0, 1:, :4])
    assert inside[:4, 2:].all()


class Input(nn.Module):
    transform: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("transform", torch.eye(3))


class Waves(Generator):
    """Draws plane waves exactly, plus noise of standard deviation `error`, new in each image."""

    z_dim = 4

    def __init__(self, error: float = 0.0, turns: bool = True) -> None:
        super().__init__()
        self.error, self.turns = error, turns
        self.random = torch.Generator().manual_seed(1)
        self.synthesis = nn.Module()
        self.synthesis.input = Input()

    @property
    def transform(self) -> Tensor:
        found: Tensor = self.synthesis.input.transform  # type: ignore[union-attr, assignment]
        return found

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        transform = self.transform.clone()
        if not self.turns:
            transform[:2, :2] = torch.eye(2)
        images = (waves(transform, cycles=4.0) * 0.5).expand(len(latents), -1, -1, -1)
        noise = torch.randn(images.shape, generator=self.random, dtype=torch.float64)
        return images + noise * self.error


def test_values_are_those_of_the_noise() -> None:
    """Two images with noise of standard deviation s differ by 2·s²: 10·log(4 / 2s²)."""
    found = equivariance(Waves(), "gaussian", NO_LABELS, 16, CPU)
    assert found["eq_t"].value > 100
    assert found["eq_r"].value > 40
    noisy = equivariance(Waves(0.1), "gaussian", NO_LABELS, 32, CPU)
    assert noisy["eq_t"].value == pytest.approx(10 * math.log10(4 / 0.02), abs=0.3)
    assert 0 < noisy["eq_t"].sd < 0.5
    turning = equivariance(Waves(turns=False), "gaussian", NO_LABELS, 16, CPU)
    assert turning["eq_t"].value > 100
    assert turning["eq_r"].value < 20


def test_the_transform_is_restored_and_others_are_refused_in_one_line() -> None:
    generator = Waves()
    given = rotation(0.3)
    generator.transform.copy_(given)
    found = equivariance(generator, "gaussian", NO_LABELS, 8, CPU)
    assert found["eq_t"].value > 20
    assert torch.equal(generator.transform, given)
    plain = build_generator(DcganGenerator(width=2, z_dim=4), ImageShape(SIDE, SIDE, 3))
    with pytest.raises(UserError, match=r"^mine: its generator has no input") as caught:
        equivariance(plain, "gaussian", NO_LABELS, 8, CPU, name="mine")
    assert "\n" not in str(caught.value)

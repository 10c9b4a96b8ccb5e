"""Path lengths of generators whose true length is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.extractor import load_extractor
from training.latent.space import StyleGenerator
from training.metrics.path_length import path_length, slerp
from training.networks import Generator

LABELS = np.array([0, 1])
CPU = torch.device("cpu")


def squares(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().sum((1, 2, 3))


class Linear(Generator):
    """z is the image, times `gain`; in float64, so that ε is not lost in rounding."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.z_dim = nn.Parameter(torch.tensor(gain)), 12

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return (latents * self.gain).reshape(-1, 3, 2, 2)


class Halves(Linear):
    """w = 2z."""

    num_ws, w_avg = 4, torch.zeros(12)

    def mapping(self, latents: Tensor, labels: Tensor) -> Tensor:
        return (2 * latents)[:, None].repeat(1, 4, 1)

    def synthesis(self, ws: Tensor) -> Tensor:
        return self(ws[:, 0], ws)


@pytest.mark.slow
def test_in_w_it_is_the_squared_length_of_the_way() -> None:
    found = path_length(Halves(3.0).double(), "gaussian", squares, LABELS, 2000, CPU)
    # ‖3 · 2(z₂ − z₁)‖², 12 dimensions of variance 2; float32 rounds steps of 10⁻⁴
    assert found.space == "w"
    assert found.value == pytest.approx(36 * 24, rel=0.05)
    assert 0 < found.sd < 36
    assert isinstance(Halves(1.0), StyleGenerator)
    assert not isinstance(Linear(1.0), StyleGenerator)


def test_in_z_it_is_the_squared_angle_on_the_sphere() -> None:
    found = path_length(Linear(1.0), "sphere", squares, LABELS, 1000, CPU)
    random = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1)[:, None] for x in random.normal(size=(2, 4000, 12)))
    expected = (np.arccos((a * b).sum(1)) ** 2).mean() * 12  # the sphere's radius is √12
    assert found.space == "z"
    assert found.value == pytest.approx(expected, rel=0.05)


def test_slerp_stays_on_the_circle() -> None:
    a, b = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 4.0]]).double()
    middle = slerp(a, b, torch.tensor([[0.5]]).double())
    torch.testing.assert_close(middle, 3 * torch.tensor([[1.0, 1.0]]).double() / math.sqrt(2))
    torch.testing.assert_close(slerp(a, b, torch.zeros(1, 1).double()), a)


@pytest.mark.slow
def test_a_rougher_generator_is_longer_by_the_perceptual_distance() -> None:
    distance = load_extractor().distance
    smooth, rough = (
        path_length(Linear(gain), "gaussian", distance, LABELS, 16, CPU).value
        for gain in (0.1, 0.5)
    )
    assert 0 < smooth < rough
    again = path_length(Linear(0.1), "gaussian", distance, LABELS, 16, CPU).value
    assert again == smooth

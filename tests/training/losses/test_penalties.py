"""Gradient penalties against the closed form on linear and quadratic critics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.losses import (
    clip_weights,
    dragan,
    gradient_penalty,
    squared_gradient,
)  # fmt: skip

SHAPE = (5, 3, 4, 4)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(1)).requires_grad_(True)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.randn(SHAPE, generator=random), torch.randn(SHAPE, generator=random)


def test_linear_critic_has_the_norm_of_its_weight(
    weight: Tensor, images: tuple[Tensor, Tensor]
) -> None:
    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=(1, 2, 3))

    real, fake = images
    share = torch.rand(5, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    norm = weight.detach().norm()
    assert torch.allclose(squared_gradient(critic, real), norm**2 / 2)
    assert torch.allclose(gradient_penalty(critic, real, fake, share), (norm - 1) ** 2)
    assert torch.allclose(dragan(critic, real, torch.rand(SHAPE), share), (norm - 1) ** 2)


def test_quadratic_critic_tells_where_the_penalty_is_taken(images: tuple[Tensor, Tensor]) -> None:
    """D(x) = ½‖x‖² has the gradient x: each penalty shows its own points."""

    def critic(x: Tensor) -> Tensor:
        return x.square().sum(dim=(1, 2, 3)) / 2

    real, fake = images
    random = torch.Generator().manual_seed(3)
    share = torch.rand(5, 1, 1, 1, generator=random)
    noise = torch.rand(SHAPE, generator=random)
    assert torch.allclose(
        squared_gradient(critic, real), real.flatten(1).norm(dim=1).square().mean() / 2
    )
    between = (share * real + (1 - share) * fake).flatten(1).norm(dim=1)
    assert torch.allclose(
        gradient_penalty(critic, real, fake, share), (between - 1).square().mean()
    )
    around = (real + share * 0.5 * real.std() * noise).flatten(1).norm(dim=1)
    assert torch.allclose(dragan(critic, real, noise, share), (around - 1).square().mean())


def test_penalties_train_the_critic(weight: Tensor, images: tuple[Tensor, Tensor]) -> None:
    """∂/∂w of ½‖w‖² is w, of (‖w‖ − 1)² is 2(‖w‖ − 1)·w/‖w‖."""

    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=(1, 2, 3))

    real, fake = images
    (gradient,) = torch.autograd.grad(squared_gradient(critic, real), weight)
    assert torch.allclose(gradient, weight, atol=1e-6)
    (gradient,) = torch.autograd.grad(
        gradient_penalty(critic, real, fake, torch.rand(5, 1, 1, 1)), weight
    )
    norm = weight.detach().norm()
    assert torch.allclose(gradient, 2 * (norm - 1) * weight / norm, atol=1e-5)


def test_zero_gradient_is_penalised_without_nan(images: tuple[Tensor, Tensor]) -> None:
    weight = torch.zeros(SHAPE[1:], requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=(1, 2, 3))

    penalty = gradient_penalty(critic, *images, torch.rand(5, 1, 1, 1))
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert penalty.item() == 1
    assert torch.isfinite(gradient).all()


def test_penalty_on_a_network_is_the_finite_difference() -> None:
    """R1 of a small network in float64 against central differences in every pixel."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).double()
    images = torch.randn(2, 1, 3, 3, dtype=torch.float64)

    def critic(x: Tensor) -> Tensor:
        return network(x.to(torch.float64)).flatten()

    total, step = 0.0, 1e-5
    for index in range(9):
        change = torch.zeros(9, dtype=torch.float64)
        change[index] = step
        change = change.reshape(1, 1, 3, 3)
        slope = (critic(images + change) - critic(images - change)) / (2 * step)
        total += slope.square().sum().item()
    assert squared_gradient(critic, images).item() == pytest.approx(total / 2 / 2, rel=1e-5)


def test_clipping_bounds_every_weight() -> None:
    torch.manual_seed(0)
    network = nn.Linear(30, 30)
    before = network.weight.detach().clone()
    clip_weights(list(network.parameters()), 0.05)
    assert torch.equal(network.weight, before.clamp(-0.05, 0.05))
    assert before.abs().max() > 0.05
    assert network.bias.abs().max() <= 0.05

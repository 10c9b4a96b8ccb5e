"""Feature matching, class and code losses against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import class_loss, code_loss, feature_matching


def test_feature_matching_compares_means_alone() -> None:
    real = torch.tensor([[1.0, 4.0], [3.0, 0.0]])
    fake = torch.tensor([[0.0, 0.0], [2.0, 6.0]], requires_grad=True)
    loss = feature_matching(real, fake)  # means (2, 2) and (1, 3)
    assert loss.item() == pytest.approx((1 + 1) / 2)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert torch.allclose(gradient, torch.tensor([[-0.5, 0.5], [-0.5, 0.5]]))
    assert feature_matching(real, real.flip(0)).item() == 0


def test_feature_matching_leaves_the_real_side_alone() -> None:
    real = torch.randn(3, 2, requires_grad=True)
    feature_matching(real, torch.randn(3, 2, requires_grad=True)).backward()
    assert real.grad is None


def test_class_loss_is_the_log_probability() -> None:
    guesses = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = -(
        math.log(math.exp(2) / (math.exp(2) + 2)) + math.log(math.exp(1) / (math.exp(1) + 2))
    )
    assert class_loss(guesses, torch.tensor([0, 2])).item() == pytest.approx(expected / 2)


def test_code_loss_adds_groups_and_gaussians() -> None:
    codes = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0, 0.5]])
    guesses = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0, 2.5]])
    first = -math.log(math.exp(2) / (math.exp(2) + 1))
    second = -math.log(math.e / (math.e + 2))
    loss = code_loss(guesses, codes, [2, 3])
    assert loss.item() == pytest.approx(first + second + 2.0**2 / 2, rel=1e-6)


def test_code_loss_without_continuous_codes() -> None:
    loss = code_loss(torch.zeros(4, 3), torch.eye(4, 3), [3])
    assert loss.item() == pytest.approx(math.log(3))

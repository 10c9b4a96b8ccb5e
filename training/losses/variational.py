"""The terms of a variational autoencoder (Kingma & Welling 2014)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − log σ² − 1) of each row (n, k), (n,) (Kingma &
    Welling 2014, appendix B)."""
    parts = mean.square() + log_variance.exp() - log_variance - 1
    return parts.sum(dim=1) / 2


def half_squared_distance(values: Tensor, others: Tensor) -> Tensor:
    """½ Σ (v − o)² of each sample (n, …), mean over the batch: −log p of a Gaussian with unit
    variance, up to a constant (Larsen et al. 2016, eq. 7)."""
    apart = (values.float() - others.float()).flatten(1)
    return apart.square().sum(dim=1).mean() / 2


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """Return the values, with `factor` times their derivative in the backward pass."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled

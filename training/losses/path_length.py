"""Path length regularisation (Karras 2020a, section 3.2): a step in w should change the image by
a fixed amount, for every w and direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.double_backward import double_backward, skip_weight_gradients


def path_lengths(
    synthesis: Callable[[Tensor], Tensor], ws: Tensor, random: torch.Generator
) -> Tensor:
    """‖Jᵀy‖ with y ~ N(0, 1)/√(pixels) per sample, (n,), differentiable.

    `ws` (n, num_ws, w_dim) with their graph; the squares are summed over w and averaged over the
    layers, as in the published code.
    """
    with double_backward():
        images = synthesis(ws)
    pixels = images.shape[2] * images.shape[3]
    noise = torch.randn(images.shape, generator=random, device=images.device) / pixels**0.5
    with skip_weight_gradients():
        (gradient,) = torch.autograd.grad(images, ws, noise, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_penalty(lengths: Tensor, mean: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """E(‖Jᵀy‖ − a)² and the new running mean a (eq. 4), which is updated towards `lengths` by
    `decay`."""
    mean = mean.lerp(lengths.mean(), decay)
    return (lengths - mean).square().mean(), mean.detach()

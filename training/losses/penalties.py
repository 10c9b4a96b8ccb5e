"""Penalties on the discriminator's gradient with respect to the image.

`critic` maps images (n, c, h, w) in [-1, 1] to logits (n,). Each penalty is a scalar without its
weight, differentiable with respect to the discriminator's weights. `scale` is the loss scale of
fp16, see `image_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.double_backward import double_backward, skip_weight_gradients

Critic = Callable[[Tensor], Tensor]
Scale = float | Tensor


def image_gradient(critic: Critic, images: Tensor, scale: Scale = 1.0) -> Tensor:
    """∇ₓ Σ critic(x), of the shape of `images`, differentiable; `scale` as in `logit_gradients`."""
    images = images.detach().requires_grad_(True)
    with double_backward():
        logits = critic(images)
    return logit_gradients([logits], [images], scale)[0]


def logit_gradients(
    logits: Sequence[Tensor], images: Sequence[Tensor], scale: Scale = 1.0
) -> list[Tensor]:
    """∇ₓ Σ D(x) for each of `images`, given their logits (n,), differentiable.

    Logits may depend only on the images at the same place of the sequence. With fp16 logits, the
    gradient is computed `scale` times as large, per image like the loss, and divided again in
    float32: otherwise fp16 would round it to 0.
    """
    unscaled = isinstance(scale, float) and scale == 1.0  # a comparison waits for the device
    factor = 1.0 if unscaled else scale / len(images[0])
    total = torch.stack([one.float().sum() * factor for one in logits]).sum()
    with skip_weight_gradients():
        gradients = torch.autograd.grad(total, images, create_graph=True)
    if unscaled:
        return list(gradients)
    return [gradient.float() / factor for gradient in gradients]


def squared_norm(gradient: Tensor) -> Tensor:
    """½·E‖∇D(x)‖² of a gradient (n, c, h, w)."""
    return gradient.float().square().sum(dim=(1, 2, 3)).mean() / 2


def squared_gradient(critic: Critic, images: Tensor, scale: Scale = 1.0) -> Tensor:
    """½·E‖∇D(x)‖²: R1 on real images, R2 on fake ones (Mescheder 2018, eq. 9 without γ)."""
    return squared_norm(image_gradient(critic, images, scale))


def _unit_norm(critic: Critic, images: Tensor, scale: Scale) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(
        image_gradient(critic, images, scale).float().flatten(1), dim=1
    )
    return (norms - 1).square().mean()


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, share: Tensor, scale: Scale = 1.0
) -> Tensor:
    """E(‖∇D(x̂)‖ − 1)² at x̂ = ε·x + (1−ε)·G(z) (Gulrajani 2017, eq. 3).

    `share` is ε, uniform in [0, 1], of shape (n, 1, 1, 1).
    """
    return _unit_norm(critic, share * real + (1 - share) * fake, scale)


def dragan(
    critic: Critic, real: Tensor, noise: Tensor, share: Tensor, scale: Scale = 1.0
) -> Tensor:
    """E(‖∇D(x + α·½·std(x)·u)‖ − 1)² around real images (Kodali 2017, section 2.3).

    `noise` is u, uniform in [0, 1], of the shape of `real`; `share` is α, (n, 1, 1, 1).
    """
    return _unit_norm(critic, real + share * real.std() * noise / 2, scale)


@torch.no_grad()
def clip_weights(weights: list[Tensor], bound: float) -> None:
    """Clip each of `weights` to [-bound, bound] (Arjovsky 2017, algorithm 1)."""
    torch._foreach_clamp_min_(weights, -bound)
    torch._foreach_clamp_max_(weights, bound)

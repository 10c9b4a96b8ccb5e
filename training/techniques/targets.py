"""Targets of the discriminator: smoothed, soft and noisy, flipped."""

from __future__ import annotations

import torch
from torch import Tensor

Setting = float | tuple[float, float]
Target = Tensor | float


def draw_target(setting: Setting, count: int, random: torch.Generator) -> Target:
    """Return targets for `count` samples: a number for all, or (n,) uniform between two numbers."""
    if not isinstance(setting, tuple):
        return setting
    low, high = setting
    return low + (high - low) * torch.rand(count, generator=random, device=random.device)


def draw_targets(
    real: Setting, fake: Setting, flip: float, count: int, random: torch.Generator
) -> tuple[Target, Target]:
    """Return the targets of `count` real and `count` fake samples.

    Each target is, with probability `flip`, drawn like one of the other kind.
    """
    targets = draw_target(real, count, random), draw_target(fake, count, random)
    if not flip:
        return targets
    others = draw_target(fake, count, random), draw_target(real, count, random)
    flipped = []
    for target, other in zip(targets, others, strict=True):
        chosen = torch.rand(count, generator=random, device=random.device) < flip
        whole = torch.ones(count, device=random.device)
        flipped.append(torch.where(chosen, other * whole, target * whole))
    return flipped[0], flipped[1]

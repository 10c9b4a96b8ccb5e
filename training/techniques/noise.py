"""Instance noise: what blurs real and fake alike, less and less (Sønderby 2017; Arjovsky 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_scale(start: float, kimg: float, seen: int) -> float:
    """The noise's standard deviation after `seen` images: from `start` linearly to 0 at `kimg`
    thousand (0: it stays)."""
    return start * max(0.0, 1 - seen / (kimg * 1000)) if kimg else start


def add_noise(images: Tensor, scale: float, random: torch.Generator) -> Tensor:
    """`images` with Gaussian noise of standard deviation `scale`, from `random`."""
    if not scale:
        return images
    # drawn in float32: the same noise whatever the precision of the images
    noise = torch.empty_like(images, dtype=torch.float32).normal_(0, scale, generator=random)
    return images + noise.to(images.dtype)

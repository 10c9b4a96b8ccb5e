"""Instance noise: decaying noise on real and fake images (Sønderby 2017; Arjovsky 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_scale(start: float, kimg: float, seen: int) -> float:
    """Return the standard deviation of the noise after `seen` images: linear from `start` to 0
    at `kimg` thousand (0: constant)."""
    return start * max(0.0, 1 - seen / (kimg * 1000)) if kimg else start


def add_noise(images: Tensor, scale: float, random: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `scale`, drawn from `random`, to `images`."""
    if not scale:
        return images
    # drawn in float32, so that the noise does not depend on the precision of the images
    noise = torch.empty_like(images, dtype=torch.float32).normal_(0, scale, generator=random)
    return images + noise.to(images.dtype)

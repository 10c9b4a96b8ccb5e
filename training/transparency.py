"""Transparency in training. Images with four channels hold premultiplied RGBA: colour times alpha.

Then a transparent pixel has one value (−1 in all channels) instead of an arbitrary colour that a
network would learn, resizing and warping mix no invisible colours into edges, and compositing is
linear. Decoding multiplies, `training.grid` divides when it writes files.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.imaging.alpha import parse_colour

CHANNELS = 4
BLANK = -1.0
"""The value of all channels of a transparent pixel."""


def has_alpha(images: Tensor) -> bool:
    """Return True if images (n, channels, h, w) are RGBA."""
    return images.shape[1] == CHANNELS


def composite(images: Tensor, background: Tensor | float) -> Tensor:
    """Composite float RGBA (n, 4, h, w) in [-1, 1] over a background with values from 0 to 1, a
    number or (n, 3, 1, 1): (n, 3, h, w) in [-1, 1]. Other images are returned unchanged.

    With P = 2·α·C − 1 and A = 2·α − 1, the composite 2·(α·C + (1 − α)·B) − 1 is P + (1 − A)·B.
    """
    if not has_alpha(images):
        return images
    return images[:, :3] + (1 - images[:, 3:]) * background


def color_values(text: str) -> Tensor:
    """Return the colour "#rrggbb" as (1, 3, 1, 1), values from 0 to 1."""
    return torch.tensor(parse_colour(text), dtype=torch.float32).view(1, 3, 1, 1) / 255


def random_backgrounds(images: Tensor) -> Tensor:
    """Draw a uniform colour per image, (n, 3, 1, 1), values from 0 to 1."""
    return torch.rand(len(images), 3, 1, 1, device=images.device)


def limit_colours(images: Tensor) -> Tensor:
    """Reduce the colours of generated RGBA to alpha, which premultiplied colours cannot exceed: a
    generator's can. Other images are returned unchanged."""
    if not has_alpha(images):
        return images
    alpha = images[:, 3:]
    return torch.cat([torch.minimum(images[:, :3], alpha), alpha], dim=1)


def fill(images: Tensor, keep: Tensor) -> Tensor:
    """Blank the pixels of images (n, c, h, w) where `keep` (n, 1, h, w) is 0: mid-gray, or
    transparent in RGBA."""
    kept = images * keep
    return kept + BLANK * (1 - keep) if has_alpha(images) else kept


def split_alpha(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return α·c, colours c in [-1, 1] times alpha (n, 3, h, w), and α (n, 1, h, w), from 0 to 1,
    of RGBA. A linear change of colour applies to both α·c and, with its offset times α."""
    alpha = (images[:, 3:] + 1) / 2
    return images[:, :3] + 1 - alpha, alpha


def join_alpha(colours: Tensor, alpha: Tensor) -> Tensor:
    """The inverse of `split_alpha`."""
    return torch.cat([colours + alpha - 1, alpha * 2 - 1], dim=1)

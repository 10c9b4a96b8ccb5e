"""DiffAugment (Zhao et al. 2020): the same random changes to real and fake images, differentiable.

Images are float (n, c, h, w) in [-1, 1]; RGBA is premultiplied (`training.transparency`). Random
numbers come from the given generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.transparency import fill, has_alpha, join_alpha, split_alpha

Transform = Callable[[Tensor, torch.Generator], Tensor]


def _uniform(images: Tensor, random: torch.Generator, count: int = 1) -> Tensor:
    shape = (len(images), count, 1, 1)
    return torch.rand(shape, generator=random, device=images.device, dtype=torch.float32)


def color(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness ± 0.5, saturation × U(0, 2), contrast × U(0.5, 1.5), in this order. Alpha is not
    changed; the contrast's mean is that of the visible colours."""
    brightness, saturation, contrast = _uniform(images, random, 3).to(images.dtype).unbind(1)
    if has_alpha(images):
        colours, alpha = split_alpha(images)
        colours = colours + alpha * (brightness[:, None] - 0.5)
        gray = colours.mean(dim=1, keepdim=True)
        colours = gray + (colours - gray) * (saturation[:, None] * 2)
        weight = alpha.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-4)
        mean = alpha * (colours.mean(dim=(1, 2, 3), keepdim=True) / weight)
        return join_alpha(mean + (colours - mean) * (contrast[:, None] + 0.5), alpha)
    images = images + (brightness[:, None] - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (saturation[:, None] * 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast[:, None] + 0.5)


def translation(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the size in whole pixels, mid-gray (0) or transparent outside."""
    count, _, height, width = images.shape
    shifts = []
    for size in (height, width):
        reach = int(size / 8 + 0.5)
        shifts.append(
            torch.randint(-reach, reach + 1, (count,), generator=random, device=images.device)
        )
    rows = torch.arange(height, device=images.device) - shifts[0][:, None]
    columns = torch.arange(width, device=images.device) - shifts[1][:, None]
    inside = (
        (((rows >= 0) & (rows < height))[:, :, None])
        & (((columns >= 0) & (columns < width))[:, None, :])
    )
    batch = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return fill(moved.permute(0, 3, 1, 2), inside[:, None].to(images.dtype))


def cutout(images: Tensor, random: torch.Generator) -> Tensor:
    """Blank a square of half the size at a random position (possibly partly outside)."""
    count, _, height, width = images.shape
    keep = torch.ones(count, height, width, dtype=torch.bool, device=images.device)
    marks = []
    for size in (height, width):
        half = int(size * 0.5 + 0.5)
        centre = torch.randint(
            0, size + (1 - half % 2), (count, 1), generator=random, device=images.device
        )
        start = centre - half // 2
        place = torch.arange(size, device=images.device)[None]
        marks.append((place >= start) & (place < start + half))
    keep &= ~(marks[0][:, :, None] & marks[1][:, None, :])
    return fill(images, keep[:, None].to(images.dtype))


TRANSFORMS: dict[str, Transform] = {"color": color, "translation": translation, "cutout": cutout}


def augment(images: Tensor, policy: Sequence[str], random: torch.Generator) -> Tensor:
    """Apply the transforms of `policy` to `images`, in order."""
    for name in policy:
        images = TRANSFORMS[name](images, random)
    return images

"""Corruptions: noise and blank rectangles (Karras et al. 2020a, Appendix B)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation.transform_sampler import TransformSampler, apply_to_rows
from training.machine.device import to_device
from training.transparency import fill, has_alpha, join_alpha, split_alpha

NOISE = 0.1
"""Standard deviation of the normal distribution whose absolute value is the noise's standard
deviation."""
CUTOUT = 0.5
"""Height and width of the blank rectangle, as fractions of the image size."""


def draw_noise(draws: TransformSampler) -> Tensor:
    """Draw the standard deviation of the noise on each image, float64 (n,)."""
    return draws.where(draws.normal().abs() * NOISE, 0)


def add_noise(images: Tensor, scale: Tensor, random: torch.Generator) -> Tensor:
    """Add noise drawn from `random`, of the images' device, to float32 `images` (n, c, h, w); in
    RGBA, to the visible colours: times alpha, which is not changed."""

    def transform(some: Tensor, rows: Tensor) -> Tensor:
        noise = torch.empty(some.shape, device=some.device).normal_(generator=random)
        noise = noise * to_device(scale[rows].float(), some.device)[:, None, None, None]
        if has_alpha(some):
            colors, alpha = split_alpha(some)
            return join_alpha(colors + alpha * noise[:, :3], alpha)
        return some + noise

    return apply_to_rows(images, scale != 0, transform)


def draw_cutouts(draws: TransformSampler) -> tuple[Tensor, Tensor]:
    """Draw which images get a rectangle, bool (n,), and its centre (n, 2), x and y as fractions
    of the size."""
    happens = draws.where(torch.ones(draws.count, dtype=torch.float64), 0) != 0
    return happens, draws.uniform(2)


def cut_out(images: Tensor, happens: Tensor, centre: Tensor) -> Tensor:
    """Set the rectangles of float32 `images` (n, c, h, w) to mid-gray (0) or transparent; they
    may extend outside."""

    def transform(some: Tensor, rows: Tensor) -> Tensor:
        inside = []
        for axis, size in enumerate((some.shape[3], some.shape[2])):
            pixel = (torch.arange(size, dtype=torch.float64) + 0.5) / size
            inside.append((pixel - centre[rows, axis, None]).abs() < CUTOUT / 2)
        blank = inside[1][:, None, :, None] & inside[0][:, None, None, :]
        return fill(some, to_device((~blank).to(some.dtype), some.device))

    return apply_to_rows(images, happens, transform)

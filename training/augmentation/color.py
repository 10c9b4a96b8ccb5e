"""Colour changes by affine maps: brightness, contrast, luma flip, hue and saturation in one.

Transforms are composed in the order of Karras et al. 2020a, Appendix B; colours are in [-1, 1], and
luma is the direction (1, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Set

import torch
from torch import Tensor

from training.augmentation.transform_sampler import TransformSampler
from training.machine.device import to_device
from training.transparency import has_alpha, join_alpha, split_alpha

BRIGHTNESS = 0.2
"""Standard deviation of the brightness offset."""
CONTRAST_OCTAVES = 0.5
"""Standard deviation of log2 of the contrast."""
SATURATION_OCTAVES = 1.0
"""Standard deviation of log2 of the saturation."""
_LUMA = torch.full((3, 3), 1 / 3, dtype=torch.float64)
"""The projection on the gray axis."""
_CHROMA = torch.eye(3, dtype=torch.float64) - _LUMA
_QUARTER = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
"""A quarter turn about the gray axis, in the plane across it: red towards green."""


def draw_colors(draws: TransformSampler, chosen: Set[str]) -> tuple[Tensor, Tensor]:
    """Draw maps color → matrix · color + offset for the `chosen` among brightness, contrast,
    lumaflip, hue, saturation: float64 (n, 3, 3) and (n,); the offset is the same for all
    channels."""
    count = draws.count
    matrix = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    offset = torch.zeros(count, dtype=torch.float64)
    if "brightness" in chosen:
        offset = draws.where(draws.normal() * BRIGHTNESS, 0)
    if "contrast" in chosen:
        factor = draws.where(torch.exp2(draws.normal() * CONTRAST_OCTAVES), 1)
        matrix, offset = matrix * factor[:, None, None], offset * factor
    if "lumaflip" in chosen:
        side = draws.where(1 - 2 * draws.choice(2).double(), 1)
        matrix, offset = _stretch(side, luma=True) @ matrix, offset * side
    if "hue" in chosen:
        angle = draws.where((draws.uniform() * 2 - 1) * math.pi, 0)
        matrix = hue_rotation(angle) @ matrix
    if "saturation" in chosen:
        factor = draws.where(torch.exp2(draws.normal() * SATURATION_OCTAVES), 1)
        matrix = _stretch(factor, luma=False) @ matrix
    return matrix, offset


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotations (n, 3, 3) about the gray axis; 2π/3 takes red to green."""
    turn = angle[:, None, None]
    return _LUMA + turn.cos() * _CHROMA + turn.sin() * _QUARTER


def _stretch(factor: Tensor, luma: bool) -> Tensor:
    """Scale along the gray axis, or across it: (n, 3, 3)."""
    scaled, kept = (_LUMA, _CHROMA) if luma else (_CHROMA, _LUMA)
    return factor[:, None, None] * scaled + kept


def recolor(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Apply the maps of `draw_colors` to float32 images (n, 3, h, w), gray (n, 1, h, w) or RGBA (n,
    4, h, w), whose alpha is not changed.

    A gray image is treated as one with three equal channels.
    """
    if has_alpha(images):
        colors, alpha = split_alpha(images)
        moved = recolor(colors, matrix, torch.zeros_like(offset))
        lift = alpha * to_device(offset.float(), images.device)[:, None, None, None]
        return join_alpha(moved + lift, alpha)
    if images.shape[1] == 1:
        matrix = matrix.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True)
    neutral = torch.eye(images.shape[1], dtype=matrix.dtype)
    if bool((matrix == neutral).all()) and not bool(offset.any()):
        return images
    matrix, offset = (to_device(part.float(), images.device) for part in (matrix, offset))
    colors = torch.baddbmm(offset[:, None, None], matrix, images.flatten(2))
    return colors.view(images.shape)

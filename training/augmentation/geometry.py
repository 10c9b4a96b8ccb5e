"""Geometric transforms: the source position of each pixel, as random affine maps.

A map takes a position in the result to one in the source, both in pixels from the image's centre:
x_source = L·x_result + t. Transforms are composed in the order of Karras et al. 2020a, Appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor

from training.augmentation.transform_sampler import TransformSampler

SHIFT = 0.125
"""Largest integer translation, and the standard deviation of the fractional one, as fractions of
the size."""
SCALE_OCTAVES = 0.2
"""Standard deviation of log2 of a scale."""
_COSINE, _SINE = torch.tensor([[1.0, 0, -1, 0], [0, 1, 0, -1]], dtype=torch.float64)


@dataclass(frozen=True)
class AffineMaps:
    """Affine maps, float64 on the CPU: `linear` (n, 2, 2) in the order x, y, and `offset` (n, 2).

    Values that no rotation has mixed stay exactly 0, 1 or −1.
    """

    linear: Tensor
    offset: Tensor

    def compose(self, linear: Tensor, offset: Tensor | None = None) -> AffineMaps:
        """Compose with another map, which is applied first, on the side of the result."""
        moved = self.offset
        if offset is not None:
            moved = moved + (self.linear @ offset[:, :, None])[:, :, 0]
        return AffineMaps(self.linear @ linear, moved)


def identity(count: int) -> AffineMaps:
    """Identity maps."""
    linear = torch.eye(2, dtype=torch.float64).expand(count, 2, 2)
    return AffineMaps(linear, torch.zeros(count, 2, dtype=torch.float64))


def rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotation matrices (n, 2, 2)."""
    return torch.stack([cosine, -sine, sine, cosine], dim=-1).view(-1, 2, 2)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Diagonal matrices (n, 2, 2)."""
    return torch.diag_embed(torch.stack([x, y], dim=-1))


def draw_maps(draws: TransformSampler, chosen: Set[str], width: int, height: int) -> AffineMaps:
    """Draw one map per image, of the `chosen` among xflip, rotate90, xint, scale, rotate, aniso,
    xfrac."""
    maps, size = _draw_blits(draws, chosen, width, height), torch.tensor([width, height])
    if "scale" in chosen:
        factor = draws.where(torch.exp2(draws.normal() * SCALE_OCTAVES), 1)
        maps = maps.compose(scaling(1 / factor, 1 / factor))
    if "rotate" in chosen:
        maps = maps.compose(_draw_rotation(draws))
    if "aniso" in chosen:
        factor = draws.where(torch.exp2(draws.normal() * SCALE_OCTAVES), 1)
        maps = maps.compose(scaling(1 / factor, factor))
    if "rotate" in chosen:
        maps = maps.compose(_draw_rotation(draws))
    if "xfrac" in chosen:
        shift = draws.where(draws.normal(2) * SHIFT, 0) * size
        maps = maps.compose(torch.eye(2, dtype=torch.float64).expand(draws.count, 2, 2), -shift)
    return maps


def _draw_blits(draws: TransformSampler, chosen: Set[str], width: int, height: int) -> AffineMaps:
    maps, one = identity(draws.count), torch.ones(draws.count, dtype=torch.float64)
    if "xflip" in chosen:
        side = draws.where(1 - 2 * draws.choice(2).double(), 1)
        maps = maps.compose(scaling(side, one))
    if "rotate90" in chosen:
        quarters = draws.where(draws.choice(4), 0)
        maps = maps.compose(rotation(_COSINE[quarters], _SINE[quarters]))
    if "xint" in chosen:
        size = torch.tensor([width, height])
        shift = draws.where((draws.uniform(2) * 2 - 1) * SHIFT, 0) * size
        maps = maps.compose(
            torch.eye(2, dtype=torch.float64).expand(draws.count, 2, 2), -shift.round()
        )
    return maps


def _draw_rotation(draws: TransformSampler) -> Tensor:
    """Draw one of the two rotations, before and after the anisotropic scale, with a probability
    such that at least one of them is applied with p."""
    p = 1 - math.sqrt(1 - min(draws.p, 1.0))
    angle = draws.where((draws.uniform() * 2 - 1) * math.pi, 0, p)
    return rotation(angle.cos(), angle.sin())

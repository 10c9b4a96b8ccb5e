"""Random amplification of frequency bands (Karras et al. 2020a, Appendix B)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation.transform_sampler import TransformSampler, apply_to_rows
from training.augmentation.wavelets import BANDS, along_axes, band_matrices, expected_power
from training.machine.device import to_device

OCTAVES = 1.0
"""Standard deviation of log2 of a band's gain."""


def draw_gains(draws: TransformSampler) -> Tensor:
    """Draw the gain of each band, float64 (n, 4). Bands are drawn independently; after each, the
    expected power of natural images is restored."""
    power = expected_power()
    gains = torch.ones(draws.count, BANDS, dtype=torch.float64)
    for band in range(BANDS):
        one = torch.ones_like(gains)
        one[:, band] = draws.where(torch.exp2(draws.normal() * OCTAVES), 1)
        gains = gains * one / (power * one.square()).sum(dim=1, keepdim=True).sqrt()
    return gains


def filter_bands(images: Tensor, gains: Tensor) -> Tensor:
    """Amplify the bands of float32 `images` (n, c, h, w) by `gains` (n, 4), on each axis."""

    def transform(some: Tensor, rows: Tensor) -> Tensor:
        chosen = to_device(gains[rows].float(), some.device)
        y, x = (
            torch.einsum("nb,bij->nij", chosen, band_matrices(size, some.device))
            for size in some.shape[2:]
        )
        return along_axes(some, y, x)

    return apply_to_rows(images, (gains != 1).any(dim=1), transform)

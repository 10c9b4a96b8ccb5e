"""The two wavelets of adaptive augmentation, used for resampling and frequency bands.

Filters act on one axis at a time and are written as matrices. A band matrix includes the reflection
at the border, is differentiable any number of times, and costs less than a convolution with so few
channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from training.machine.device import to_device

_CPU = torch.device("cpu")
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""Low-pass decomposition filter of the symlet with two vanishing moments (Daubechies 1992)."""
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""The same with six vanishing moments."""
CENTRE = sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6)
"""The centre of mass of SYM6 among its taps (5.10; the middle is 5.5): the delay of slow
changes. Positions are measured from here; otherwise a half turn would move the image by 0.4 px."""
BEFORE, AFTER = 5, len(SYM6) - 6
"""Number of fine pixels before and after a pixel's first one that SYM6 covers."""
_EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
BANDS = len(_EXPECTED_POWER)


def reflect(place: Tensor, size: int) -> Tensor:
    """Reflect `place` into [0, size - 1] about the centres of the outermost pixels."""
    if size == 1:
        return torch.zeros_like(place)
    period = 2 * (size - 1)
    folded = place.remainder(period)
    return torch.minimum(folded, period - folded)


@lru_cache(maxsize=32)
def finer(size: int, device: torch.device = _CPU) -> Tensor:
    """Return the upsampling matrix of SYM6: (2·size, size), float32; the image is continued by
    reflection.

    Fine pixel u takes tap u − 2·i + BEFORE of pixel i. Together with `coarser` the identity (the
    wavelet is orthogonal).
    """
    taps = torch.tensor(SYM6, dtype=torch.float64) * 2**0.5
    matrix = torch.zeros(2 * size, size, dtype=torch.float64)
    fine = torch.arange(2 * size)
    for tap, weight in enumerate(taps):
        place = fine + BEFORE - tap
        even = place % 2 == 0
        source = reflect(place[even] // 2, size)
        matrix[fine[even], source] += weight
    return to_device(matrix.float(), device)


@lru_cache(maxsize=32)
def coarser(size: int, device: torch.device = _CPU) -> Tensor:
    """Return the downsampling matrix of SYM6: (size, BEFORE + 2·size − 1 + AFTER), float32, for
    fine pixels that start BEFORE ahead of the first one."""
    taps = torch.tensor(SYM6, dtype=torch.float64) / 2**0.5
    matrix = torch.zeros(size, fine_count(size), dtype=torch.float64)
    for row in range(size):
        matrix[row, 2 * row : 2 * row + len(taps)] = taps
    return to_device(matrix.float(), device)


def fine_count(size: int) -> int:
    """Return how many fine pixels `coarser` needs for `size` pixels."""
    return 2 * (size - 1) + len(SYM6)


def to_fine(place: Tensor) -> Tensor:
    """Convert a position in pixels to a fine coordinate."""
    return 2 * place + (CENTRE - BEFORE)


def from_fine(place: Tensor) -> Tensor:
    """Convert a fine coordinate to a position in pixels."""
    return (place - (CENTRE - BEFORE)) / 2


def band_filters() -> Tensor:
    """Return four filters (4, taps) that add up to the identity: the frequency bands [0, π/8],
    [π/8, π/4], [π/4, π/2] and [π/2, π] (Karras 2020a, Appendix B), float64.

    From the two-channel bank of SYM2: H(z)H(z⁻¹)/2 + H(−z)H(−z⁻¹)/2 = 1.
    """
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    low, high = (_convolve(taps, taps.flip(0)) / 2 for taps in (low, high))
    bank = [torch.ones(1, dtype=torch.float64)]
    for _ in range(BANDS - 1):
        bank = [_convolve(_spread(taps), low) for taps in bank]
        bank.append(torch.nn.functional.pad(high, ((len(bank[0]) - len(high)) // 2,) * 2))
    return torch.stack(bank)


@lru_cache(maxsize=32)
def band_matrices(size: int, device: torch.device = _CPU) -> Tensor:
    """`band_filters` as matrices on `size` pixels: (4, size, size), float32, with reflection."""
    filters = band_filters()
    matrices = torch.zeros(BANDS, size, size, dtype=torch.float64)
    pixel, reach = torch.arange(size), filters.shape[1] // 2
    for tap in range(filters.shape[1]):
        source = reflect(pixel + tap - reach, size)
        matrices[:, pixel, source] += filters[:, tap, None]
    return to_device(matrices.float(), device)


def along_axes(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """y · image · xᵀ per channel; images (n, c, h, w), y (n, h', h), x (n, w', w)."""
    count, channels, height, width = images.shape
    rows = torch.bmm(y, images.transpose(1, 2).reshape(count, height, channels * width))
    lines = rows.view(count, -1, width)
    return torch.bmm(lines, x.mT).view(count, y.shape[1], channels, -1).transpose(1, 2)


def expected_power() -> Tensor:
    """Return the fraction of each band in the power of natural images (1/f), float64 (4,)."""
    return torch.tensor(_EXPECTED_POWER, dtype=torch.float64)


def _convolve(one: Tensor, other: Tensor) -> Tensor:
    flipped = other.flip(0)[None, None]
    return torch.nn.functional.conv1d(one[None, None], flipped, padding=len(other) - 1)[0, 0]


def _spread(taps: Tensor) -> Tensor:
    """Insert zeros between the taps: the filter at half the frequency."""
    wide = taps.new_zeros(2 * len(taps) - 1)
    wide[::2] = taps
    return wide

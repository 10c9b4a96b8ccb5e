"""Low-pass filtering around changes of size (Karras 2020a, appendix B; Zhang 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

Padding = tuple[int, int, int, int]
"""Rows and columns of zeros: left, right, top, bottom; negative ones crop."""


def setup_filter(taps: Sequence[float]) -> Tensor:
    """The separable filter of `taps` as float32 (k, k), its sum 1."""
    row = torch.tensor(taps, dtype=torch.float32)
    both = torch.outer(row, row)
    return both / both.sum()


def upfirdn2d(
    images: Tensor, taps: Tensor, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:  # fmt: skip
    """Zeros between pixels, zeros around, convolution with `taps` (k, k), every `down`-th pixel.

    Images (n, c, h, w); the result is (h·up + top + bottom − k) // down + 1 high. Equal to
    `scipy.signal.upfirdn` along both axes, times `gain`.
    """
    count, channels, height, width = images.shape
    if up > 1:
        spread = images.new_zeros(count, channels, height, up, width, up)
        spread[:, :, :, 0, :, 0] = images
        images = spread.reshape(count, channels, height * up, width * up)
    images = pad(images, list(padding))
    weight = (taps * gain).flip((0, 1)).to(images.dtype)  # convolution, not correlation
    kernel = weight.expand(channels, 1, *taps.shape)
    return conv2d(images, kernel, stride=down, groups=channels)


def _around(taps: Tensor, before: int, after: int) -> Padding:
    size = taps.shape[0]
    return (
        (size + before) // 2, (size + after) // 2, (size + before) // 2, (size + after) // 2
    )  # fmt: skip


def upsample2d(images: Tensor, taps: Tensor) -> Tensor:
    """Twice the size, low-passed, brightness kept."""
    return upfirdn2d(images, taps, up=2, padding=_around(taps, 1, -2), gain=4)


def downsample2d(images: Tensor, taps: Tensor) -> Tensor:
    """Half the size, low-passed."""
    return upfirdn2d(images, taps, down=2, padding=_around(taps, -1, -2))

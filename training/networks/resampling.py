"""Low-pass filtering for resampling (Karras 2020a, appendix B; Zhang 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from training.networks.layers import full_precision
from training.networks.separable import Padding, filter_axes, is_separable


def setup_filter(taps: Sequence[float]) -> Tensor:
    """Return the separable filter of `taps` as float32 (k, k), normalised to sum 1."""
    row = torch.tensor(taps, dtype=torch.float32)
    both = torch.outer(row, row)
    return both / both.sum()


def upfirdn2d(
    images: Tensor, taps: Tensor, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:  # fmt: skip
    """Insert zeros between pixels, pad, convolve with `taps` (k, k), take every `down`-th pixel.

    Images (n, c, h, w); the result is (h·up + top + bottom − k) // down + 1 high. Equal to
    `scipy.signal.upfirdn` along both axes, times `gain`. `training.networks.separable.use_fir`
    selects the way of computing it.
    """
    found: Tensor = _Filter.apply(images, taps, up, down, padding, gain, is_separable())
    return found


class _Filter(torch.autograd.Function):
    """Filtering is linear, so its derivative is its adjoint: another filtering, which is
    differentiable again (the backward pass of a grouped convolution takes ten times as long)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, taps: Tensor, up: int, down: int, padding: Padding, gain: float,
        separable: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(taps)
        # the thread of a device's backward pass may be outside of `use_fir`
        ctx.given = images.shape[2:], up, down, padding, gain, separable
        with full_precision(images):
            filtered = filter_axes if separable else _convolve
            return filtered(images, taps, up, down, padding, gain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (taps,) = gradients[0], ctx.saved_tensors
        (height, width), up, down, (left, _, top, _), gain, separable = ctx.given
        size = taps.shape[0]
        around = (
            size - left - 1, width * up - gradient.shape[3] * down + left - up + 1,
            size - top - 1, height * up - gradient.shape[2] * down + top - up + 1,
        )  # fmt: skip
        taps = taps.flip((0, 1))
        found = _Filter.apply(gradient, taps, down, up, around, gain, separable)
        return found, None, None, None, None, None, None


def _convolve(
    images: Tensor, taps: Tensor, up: int, down: int, padding: Padding, gain: float
) -> Tensor:
    count, channels, height, width = images.shape
    if up > 1:
        rows = images.permute(0, 2, 3, 1)  # channels_last memory format, if the images have it
        spread = rows.new_zeros(count, height, up, width, up, channels)
        spread[:, :, 0, :, 0] = rows
        images = spread.view(count, height * up, width * up, channels).permute(0, 3, 1, 2)
    weight = (taps * gain).flip((0, 1)).to(images.dtype)  # convolution, not cross-correlation
    kernel = weight.expand(channels, 1, *taps.shape)
    left, right, top, bottom = padding
    if left == right and top == bottom and min(left, top) >= 0:
        return conv2d(images, kernel, stride=down, padding=(top, left), groups=channels)
    images = pad(images, list(padding))
    return conv2d(images, kernel, stride=down, groups=channels)


class _Sum(torch.autograd.Function):
    """Sums of 2×2. The backward pass repeats values, which is faster than that of `avg_pool2d`."""

    @staticmethod
    def forward(_ctx: Any, images: Tensor) -> Tensor:
        return avg_pool2d(images, 2, divisor_override=1)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        found: Tensor = _Repeat.apply(gradients[0])
        return found


class _Repeat(torch.autograd.Function):
    """Repeat each pixel as 2×2."""

    @staticmethod
    def forward(_ctx: Any, images: Tensor) -> Tensor:
        return interpolate(images, scale_factor=2, mode="nearest")

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(gradients[0])
        return found


def sums(images: Tensor) -> Tensor:
    """Sums of 2×2 pixels: (n, c, h, w) → (n, c, h/2, w/2)."""
    found: Tensor = _Sum.apply(images)
    return found


def halve(images: Tensor) -> Tensor:
    """Means of 2×2 pixels: (n, c, h, w) → (n, c, h/2, w/2)."""
    return sums(images) * 0.25


def _around(taps: Tensor, before: int, after: int) -> Padding:
    size = taps.shape[0]
    return (
        (size + before) // 2, (size + after) // 2, (size + before) // 2, (size + after) // 2
    )  # fmt: skip


def upsample2d(images: Tensor, taps: Tensor) -> Tensor:
    """Double the size with a low-pass filter; brightness is preserved."""
    return upfirdn2d(images, taps, up=2, padding=_around(taps, 1, -2), gain=4)


def downsample2d(images: Tensor, taps: Tensor) -> Tensor:
    """Halve the size with a low-pass filter."""
    return upfirdn2d(images, taps, down=2, padding=_around(taps, -1, -2))

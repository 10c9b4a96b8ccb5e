"""The filtered nonlinearity: upsampling, leaky ReLU, downsampling (Karras 2021, figure 3c).

Filters are depthwise convolutions with constant taps, a separable one in two passes. The derivative
of each is the other one, which is differentiable again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from training.networks.layers import full_precision
from training.networks.stylegan2.equalized import rectify

Pair = tuple[int, int]
"""Of the vertical and the horizontal axis."""


class _Spread(torch.autograd.Function):
    """Zeros between pixels, then a filter: (n, c, h, w) → (n, c, (h − 1)·stride + k − 2·crop +
    more, …) for `taps` (k, l)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, taps: Tensor, stride: Pair, crop: Pair, more: Pair
    ) -> Tensor:
        ctx.save_for_backward(taps)
        ctx.given = stride, crop
        kind, groups = images.dtype, images.shape[1]
        with full_precision(images):
            if images.device.type == "cpu":  # bfloat16 takes about six times as long
                images = images.to(torch.promote_types(kind, torch.float32))
            kernel = _kernel(taps, images)
            found = conv_transpose2d(images, kernel, None, stride, crop, more, groups)
        return found.to(kind)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (taps,), (stride, crop) = ctx.saved_tensors, ctx.given
        found: Tensor = _Gather.apply(gradients[0], taps, stride, crop)
        return found, None, None, None, None


class _Gather(torch.autograd.Function):
    """A filter at every `stride`-th pixel, after `padding` with zeros: the adjoint of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, taps: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(taps)
        ctx.given = images.shape[2:], stride, padding
        with full_precision(images):
            return conv2d(
                images, _kernel(taps, images), None, stride, padding, groups=images.shape[1]
            )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (taps,) = gradients, ctx.saved_tensors
        sizes, stride, padding = ctx.given
        more = [
            sizes[axis]
            - (gradient.shape[axis + 2] - 1) * stride[axis]
            - taps.shape[axis]
            + 2 * padding[axis]
            for axis in range(2)
        ]
        found: Tensor = _Spread.apply(gradient, taps, stride, padding, (more[0], more[1]))
        return found, None, None, None


def _kernel(taps: Tensor, images: Tensor) -> Tensor:
    """One filter (k, l) per channel; a convolution is that with the flipped filter, but all filters
    here are symmetric."""
    return taps.to(images.dtype).expand(images.shape[1], 1, *taps.shape)


def upsample(images: Tensor, taps: Tensor | None, up: int, before: int, after: int) -> Tensor:
    """Insert `up` − 1 zeros after each pixel, add rows and columns of zeros (negative: crop), and
    filter along both axes with symmetric `taps` (k,); None: one tap.

    (n, c, h, w) → (n, c, h·up + before + after − k + 1, …).
    """
    if taps is None:
        return pad(images, [before, after] * 2) if before or after else images
    start, end = len(taps) - 1 - before, len(taps) - up - after
    crop = max(0, min(start, end))
    for axis in (1, 0):  # the wider maps only in the second pass
        stride, cut, row = ((up, 1), (crop, 0), taps[:, None]) if axis == 0 else (
            (1, up), (0, crop), taps[None]
        )  # fmt: skip
        images = _Spread.apply(images, row, stride, cut, (0, 0))
    left = [crop - start, crop - end]
    return pad(images, left * 2) if any(left) else images


def downsample(images: Tensor, taps: Tensor | None, down: int) -> Tensor:
    """Filter with symmetric `taps` (k,) along both axes, or with radial ones (k, k), and keep every
    `down`-th pixel: (n, c, h, w) → (n, c, (h − k) // down + 1, …). None: no filter, `down` 1."""
    if taps is None:
        return images
    if taps.ndim == 2:
        found: Tensor = _Gather.apply(images, taps, (down, down), (0, 0))
        return found
    low: Tensor = _Gather.apply(images, taps[:, None], (down, 1), (0, 0))
    narrow: Tensor = _Gather.apply(low, taps[None], (1, down), (0, 0))
    return narrow


def filtered_rectify(
    images: Tensor, up_taps: Tensor, up: int, padding: Pair, down_taps: Tensor | None, down: int,
    gain: float, clamp: float,
) -> Tensor:  # fmt: skip
    """Upsample with `padding` (before, after), apply `gain`·leaky ReLU and the clamp, downsample.

    A leaky ReLU commutes with positive factors, so all gains are applied to the filter of the
    upsampling.
    """
    scaled = up_taps * (up * gain**0.5)
    images = rectify(upsample(images, scaled, up, *padding), clamp)
    return downsample(images, down_taps, down)

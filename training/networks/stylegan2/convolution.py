"""Convolutions with equalised learning rate, with or without resampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from training.networks.resampling import setup_filter, sums, upfirdn2d
from training.networks.stylegan2.equalized import GAIN, limit, rectify
from training.options.architectures import StyleGan2WidthOptions


def up_convolution(images: Tensor, weight: Tensor, taps: Tensor, economical: bool) -> Tensor:
    """Convolution with `weight` (out, in, k, k) at twice the size: (n, in, h, w) → (n, out, 2h,
    2w).

    Published: zeros between pixels, the convolution, the low-pass filter. Economical: the
    convolution, then bilinear interpolation.
    """
    if economical:
        images = conv2d(images, weight, padding=weight.shape[2] // 2)
        return interpolate(images, scale_factor=2, mode="bilinear")
    size, kernel = taps.shape[0], weight.shape[2]
    before, after = (size + 1) // 2, (size - 2) // 2
    if kernel == 1:
        padding = (before, after, before, after)
        return upfirdn2d(conv2d(images, weight), taps, up=2, padding=padding, gain=4)
    before, after = before + kernel // 2 - kernel + 1, after + kernel // 2 - kernel + 2
    images = conv_transpose2d(images, weight.transpose(0, 1), stride=2)
    return upfirdn2d(images, taps, padding=(before, after, before, after), gain=4)


def down_convolution(
    images: Tensor, weight: Tensor, taps: Tensor, economical: bool, bias: Tensor | None = None
) -> Tensor:
    """Convolution with `weight` (out, in, k, k) to half the size: (n, in, h, w) → (n, out, h/2,
    w/2).

    Published: the low-pass filter, then a strided convolution. Economical: sums of 2×2, then the
    convolution; a quarter of the weight turns them into means.
    """
    kernel = weight.shape[2]
    if economical:
        return conv2d(sums(images), weight, bias, padding=kernel // 2)
    size = taps.shape[0]
    before, after = kernel // 2 + (size - 1) // 2, kernel // 2 + (size - 2) // 2
    padding = (before, after, before, after)
    if kernel == 1:
        return conv2d(upfirdn2d(images, taps, down=2, padding=padding), weight, bias)
    return conv2d(upfirdn2d(images, taps, padding=padding), weight, bias, stride=2)


class Conv2dLayer(nn.Module):
    """Images (n, `in_channels`, h, w) → (n, `out_channels`, h·2, …), (…, h/2, …) or (…, h, …).

    `resize` 2 doubles, −2 halves, 1 keeps the size. With `active`: √2·leaky ReLU.
    """

    resample_filter: Tensor

    def __init__(
        self,
        options: StyleGan2WidthOptions,
        in_channels: int,
        out_channels: int,
        kernel: int,
        resize: int = 1,
        bias: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.economical, self.clamp = options.resample == "economical", options.conv_clamp
        self.resize, self.active = resize, active
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        if self.economical and resize == -2:
            self.weight_gain /= 4
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(options.resample_filter))

    def forward(self, images: Tensor, gain: float = 1.0) -> Tensor:
        # a leaky ReLU commutes with positive factors, so all gains are moved into weight and bias
        factor = gain * GAIN if self.active else gain
        weight = self.weight * (self.weight_gain * factor)
        bias = None if self.bias is None else self.bias * factor
        if self.resize == 2:
            images = up_convolution(images, weight, self.resample_filter, self.economical)
            if bias is not None:
                images = images + bias[:, None, None].to(images.dtype)
        elif self.resize == -2:
            taps = self.resample_filter
            images = down_convolution(images, weight, taps, self.economical, bias)
        else:
            images = conv2d(images, weight, bias, padding=weight.shape[2] // 2)
        if self.active:
            return rectify(images, self.clamp, gain)
        return limit(images, self.clamp, gain)

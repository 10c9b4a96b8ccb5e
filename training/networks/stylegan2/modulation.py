"""Styles by weight modulation and demodulation (Karras 2020a, section 2.2)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from training.networks.layers import computes_in_fp16, full_precision
from training.networks.resampling import setup_filter
from training.networks.stylegan2.convolution import up_convolution
from training.networks.stylegan2.equalized import (
    GAIN,
    FullyConnectedLayer,
    limit,
    normalized,
    rectify,
)  # fmt: skip
from training.options.architectures import StyleGan2Generator


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """1/√Σ(style·weight)² (n, out) for `weight` (out, in, k, k) and `styles` (n, in) (eq. 3)."""
    energy = (weight * weight).sum(dim=(2, 3))  # the derivative of `square` is slower
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


class Affine(torch.autograd.Function):
    """scales · images + offsets: (n, c, h, w), (n, c, 1, 1), (c, 1, 1).

    The derivative of PyTorch's `addcmul` would first copy the images.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(images, scales)
        return torch.addcmul(offsets, images, scales)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        gradient, (images, scales) = gradients[0], ctx.saved_tensors
        by_scales = (gradient * images).sum(dim=(2, 3), keepdim=True)
        return gradient * scales, by_scales, gradient.sum(dim=(0, 2, 3))[:, None, None]


class Mixture(torch.autograd.Function):
    """One matrix per sample (n, out, in) times pixels (n, p, in): (n, out, p).

    All derivatives with respect to the pixels keep their layout; those of PyTorch's `bmm` do not.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(matrices, pixels)
        return torch.bmm(matrices, pixels.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gradient, (matrices, pixels) = gradients[0], ctx.saved_tensors
        return torch.bmm(gradient, pixels), torch.bmm(gradient.transpose(1, 2), matrices)


class SynthesisLayer(nn.Module):
    """A modulated 3×3 convolution with noise, bias and √2·leaky ReLU; `up` doubles the size.

    Instead of one weight per sample, the images are scaled by the style, convolved with the shared
    weight, and scaled by the demodulation: the same sum in another order.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        options: StyleGan2Generator,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        up: bool = False,
    ) -> None:
        super().__init__()
        self.up, self.noise_mode, self.clamp = up, options.noise_mode, options.conv_clamp
        self.economical = options.resample == "economical"
        self.affine = FullyConnectedLayer(options.w_dim, in_channels, bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter(options.resample_filter))
        if self.noise_mode != "none":
            self.register_buffer("noise_const", torch.randn(size))
            self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, w: Tensor, noise: str, gain: float = 1.0) -> Tensor:
        """`noise`: `random`, `const` or `none`."""
        fp16 = computes_in_fp16(images)
        with full_precision(w):
            styles = self.affine(w.to(self.affine.weight.dtype))
            # a leaky ReLU commutes with positive factors, so all gains are applied before it
            factor = GAIN * gain
            weight: Tensor = self.weight
            if fp16:
                weight, styles = normalized(weight, styles)
            scales = demodulation(weight, styles) * factor
        images = images * styles[:, :, None, None].to(images.dtype)
        if self.up and not self.economical:
            images = up_convolution(images, weight, self.resample_filter, False)
        else:
            images = conv2d(images, weight, padding=1)
        scales, bias = scales.to(images.dtype), (self.bias * factor).to(images.dtype)
        images = Affine.apply(images, scales[:, :, None, None], bias[:, None, None])
        # after the operation it commutes with, which has fewer pixels
        if self.up and self.economical:
            images = interpolate(images, scale_factor=2, mode="bilinear")
        added = self.noise(images, noise, factor)
        if added is not None:
            images = images.add_(added)
        return rectify(images, self.clamp, gain)

    def noise(self, images: Tensor, noise: str, factor: float) -> Tensor | None:
        """Return the noise that is added to all channels, times `factor`: (n, 1, h, w) or (h,
        w)."""
        if noise == "none" or self.noise_mode == "none":
            return None
        if noise == "const":
            drawn = self.noise_const
        else:
            count, _, height, width = images.shape
            drawn = torch.randn(count, 1, height, width, device=images.device)
        return (drawn * (self.noise_strength * factor)).to(images.dtype)


class ToRGBLayer(nn.Module):
    """A modulated 1×1 convolution to the image's channels, without demodulation."""

    def __init__(self, options: StyleGan2Generator, in_channels: int, channels: int) -> None:
        super().__init__()
        self.clamp = options.conv_clamp
        self.affine = FullyConnectedLayer(options.w_dim, in_channels, bias=1)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, images: Tensor, w: Tensor) -> Tensor:
        with full_precision(w):
            styles = self.affine(w.to(self.affine.weight.dtype)) * self.weight_gain
            matrices = styles[:, None] * self.weight[:, :, 0, 0]
        pixels = images.permute(0, 2, 3, 1).flatten(1, 2)  # channels_last memory format
        mixed: Tensor = Mixture.apply(matrices.to(images.dtype), pixels)
        count, _, height, width = images.shape
        images = mixed.view(count, -1, height, width) + self.bias[:, None, None].to(images.dtype)
        return limit(images, self.clamp)

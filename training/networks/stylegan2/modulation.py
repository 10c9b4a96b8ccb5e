"""Style by weight modulation and demodulation (Karras 2020a, section 2.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from training.architectures import StyleGan2Generator
from training.networks.stylegan2.convolution import up_convolution
from training.networks.stylegan2.equalized import (
    GAIN,
    FullyConnectedLayer,
    full_precision,
    rectify,
)  # fmt: skip
from training.networks.stylegan2.resampling import setup_filter


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """1/√Σ(style·weight)² (n, out) for `weight` (out, in, k, k) and `styles` (n, in) (eq. 3)."""
    energy = weight.square().sum(dim=(2, 3))
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


class SynthesisLayer(nn.Module):
    """A modulated 3×3 convolution with noise, bias and √2·leaky ReLU; `up` doubles the size.

    Instead of a weight for each sample, the images are scaled by the style, convolved with the one
    weight, and scaled by the demodulation: the same sum in another order.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, table: StyleGan2Generator, inside: int, outside: int, size: tuple[int, int],
        up: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.up, self.noise_mode, self.clamp = up, table.noise_mode, table.conv_clamp
        self.economical = table.resample == "economical"
        self.affine = FullyConnectedLayer(table.w_dim, inside, bias=1)
        self.weight = nn.Parameter(torch.randn(outside, inside, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outside))
        self.register_buffer("resample_filter", setup_filter(table.resample_filter))
        if self.noise_mode != "none":
            self.register_buffer("noise_const", torch.randn(size))
            self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, w: Tensor, noise: str, gain: float = 1.0) -> Tensor:
        """`noise`: `random`, `const` or `none`."""
        with full_precision(w):
            styles = self.affine(w.to(self.affine.weight.dtype))
            # a leaky ReLU passes a factor on, so all gains are brought in before it
            factor = GAIN * gain
            scales = demodulation(self.weight, styles) * factor
        images = images * styles[:, :, None, None].to(images.dtype)
        if self.up:
            images = up_convolution(images, self.weight, self.resample_filter, self.economical)
        else:
            images = conv2d(images, self.weight, padding=1)
        scales, bias = scales.to(images.dtype), (self.bias * factor).to(images.dtype)
        images = torch.addcmul(bias[:, None, None], images, scales[:, :, None, None])
        added = self.noise(images, noise, factor)
        if added is not None:
            images = images.add_(added)
        return rectify(images, self.clamp * gain)

    def noise(self, images: Tensor, noise: str, factor: float) -> Tensor | None:
        """What is added to all channels alike, `factor` times: (n, 1, h, w) or (h, w)."""
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

    def __init__(self, table: StyleGan2Generator, inside: int, channels: int) -> None:
        super().__init__()
        self.clamp = table.conv_clamp
        self.affine = FullyConnectedLayer(table.w_dim, inside, bias=1)
        self.weight = nn.Parameter(torch.randn(channels, inside, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight_gain = 1 / math.sqrt(inside)

    def forward(self, images: Tensor, w: Tensor) -> Tensor:
        with full_precision(w):
            styles = self.affine(w.to(self.affine.weight.dtype)) * self.weight_gain
        images = images * styles[:, :, None, None].to(images.dtype)
        images = conv2d(images, self.weight, self.bias)
        return images.clamp(-self.clamp, self.clamp) if self.clamp else images

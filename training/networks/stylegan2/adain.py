"""Styles by adaptive instance normalisation, as before StyleGAN2 (Karras 2019, eq. 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from training.networks.layers import full_precision
from training.networks.resampling import setup_filter
from training.networks.stylegan2.convolution import up_convolution
from training.networks.stylegan2.equalized import (
    GAIN,
    FullyConnectedLayer,
    rectify,
)  # fmt: skip
from training.options.architectures import StyleGan2Generator


def adain(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """scale·(x − mean)/deviation + offset per channel: images (n, c, h, w), the others (n, c)."""
    values = images.to(scale.dtype)
    centred = values - values.mean(dim=(2, 3), keepdim=True)
    normal = centred * (centred.square().mean(dim=(2, 3), keepdim=True) + 1e-8).rsqrt()
    styled = torch.addcmul(offset[:, :, None, None], normal, scale[:, :, None, None])
    return styled.to(images.dtype)


class AdainLayer(nn.Module):
    """A 3×3 convolution (none if `in_channels` is 0), noise of a learned strength per channel,
    bias, leaky ReLU, then AdaIN: (n, `in_channels`, h, w) → (n, `out_channels`, …)."""

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
        self.affine = FullyConnectedLayer(options.w_dim, 2 * out_channels)
        self.weight: nn.Parameter | None = None
        if in_channels:
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
            self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter(options.resample_filter))
        if self.noise_mode != "none":
            self.register_buffer("noise_const", torch.randn(size))
            self.noise_strength = nn.Parameter(torch.zeros(out_channels))

    def forward(self, images: Tensor, w: Tensor, noise: str, gain: float = 1.0) -> Tensor:
        """`noise`: `random`, `const` or `none`."""
        if self.weight is not None:
            weight = self.weight * self.weight_gain
            if self.up:
                images = up_convolution(images, weight, self.resample_filter, self.economical)
            else:
                images = conv2d(images, weight, padding=1)
        if noise != "none" and self.noise_mode != "none":
            count, _, height, width = images.shape
            drawn = self.noise_const
            if noise == "random":
                drawn = torch.randn(count, 1, height, width, device=images.device)
            images = images + (drawn * self.noise_strength[:, None, None]).to(images.dtype)
        images = (images + self.bias[:, None, None].to(images.dtype)) * (GAIN * gain)
        images = rectify(images, self.clamp, gain)
        with full_precision(w):
            scale, offset = self.affine(w.to(self.affine.weight.dtype)).chunk(2, dim=1)
            return adain(images, scale + 1, offset)

"""A layer of StyleGAN3: modulated convolution and filtered nonlinearity (Karras 2021, figure 4)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from training.networks.layers import copy_for_backward, full_precision
from training.networks.stylegan2.equalized import GAIN, FullyConnectedLayer, limit
from training.networks.stylegan2.modulation import Affine, Mixture, demodulation
from training.networks.stylegan3.filters import radial_lowpass, separable_lowpass
from training.networks.stylegan3.resampling import filtered_rectify
from training.networks.stylegan3.schedule import LayerMaps
from training.options.styled import StyleGan3Generator

_OVERSAMPLING = 2
"""Of the leaky ReLU, relative to the higher sampling rate before and behind the layer."""


class Layer(Protocol):
    """What both kinds of layers have."""

    def __call__(self, images: Tensor, w: Tensor) -> Tensor: ...


class _ModulatedLayer(nn.Module):
    """Parameters of both kinds of layers, and the running mean square of the input."""

    magnitude_ema: Tensor

    def __init__(
        self, options: StyleGan3Generator, before: LayerMaps, after: LayerMaps, kernel: int
    ) -> None:
        super().__init__()
        self.clamp, self.beta = options.conv_clamp, options.magnitude_beta
        self.affine = FullyConnectedLayer(options.w_dim, before.channels, bias=1)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def input_gain(self, images: Tensor) -> Tensor:
        """Return what brings the input to a mean square of about 1; while training, its running
        mean is updated first."""
        if self.training:
            with torch.no_grad():
                square = images.to(torch.promote_types(images.dtype, torch.float32)).square().mean()
                self.magnitude_ema.copy_(square.lerp(self.magnitude_ema, self.beta))
        return copy_for_backward(self.magnitude_ema).rsqrt()

    def styles(self, w: Tensor) -> Tensor:
        found: Tensor = self.affine(w.to(self.affine.weight.dtype))
        return found


class SynthesisLayer(_ModulatedLayer):
    """A modulated convolution, bias, and √2·leaky ReLU between two filters, which also change the
    sampling rate: (n, `before.channels`, `before.size`, …) → (n, `after.channels`, `after.size`,
    …).

    Weights and styles are normalised before demodulation, so that no sum overflows in fp16.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, options: StyleGan3Generator, before: LayerMaps, after: LayerMaps) -> None:
        rotates = options.equivariance == "rotation"
        super().__init__(options, before, after, 1 if rotates else 3)
        rate = max(before.rate, after.rate) * _OVERSAMPLING
        self.up, self.down = rate // before.rate, rate // after.rate
        design = radial_lowpass if rotates and not after.critical else separable_lowpass
        taps = options.filter_size * self.up, options.filter_size * self.down
        self.register_buffer(
            "up_filter", separable_lowpass(taps[0], before.cutoff, 2 * before.half_width, rate)
        )
        self.register_buffer(
            "down_filter", design(taps[1], after.cutoff, 2 * after.half_width, rate)
        )
        # pixels are squares around their sample, of which the upsampled ones divide the old ones
        kernel = self.weight.shape[2]
        total = (after.size - 1) * self.down + 1 - (before.size + kernel - 1) * self.up
        total += sum(taps) - 2
        first = (total + self.up) // 2
        self.padding = first, total - first

    def forward(self, images: Tensor, w: Tensor) -> Tensor:
        with full_precision(w):
            gain, styles = self.input_gain(images), self.styles(w)
            squares = self.weight.square().mean(dim=(1, 2, 3), keepdim=True)
            weight = self.weight * squares.rsqrt()
            styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
            scales, styles = demodulation(weight, styles), styles * gain
        images = images * styles[:, :, None, None].to(images.dtype)
        images = conv2d(images, weight, padding=weight.shape[2] - 1)
        scales, bias = scales.to(images.dtype), self.bias.to(images.dtype)
        images = Affine.apply(images, scales[:, :, None, None], bias[:, None, None])
        return filtered_rectify(
            images, self.up_filter, self.up, self.padding, self.down_filter, self.down, GAIN,
            self.clamp,
        )  # fmt: skip


class ToRgbLayer(_ModulatedLayer):
    """A modulated 1×1 convolution to the channels of the image, without demodulation."""

    def __init__(self, options: StyleGan3Generator, before: LayerMaps, after: LayerMaps) -> None:
        super().__init__(options, before, after, 1)

    def forward(self, images: Tensor, w: Tensor) -> Tensor:
        with full_precision(w):
            gain = self.input_gain(images) / math.sqrt(self.weight.shape[1])
            matrices = (self.styles(w) * gain)[:, None] * self.weight[:, :, 0, 0]
        pixels = images.permute(0, 2, 3, 1).flatten(1, 2)  # channels_last memory format
        mixed: Tensor = Mixture.apply(matrices.to(images.dtype), pixels)
        count, _, height, width = images.shape
        mixed = mixed.view(count, -1, height, width) + self.bias[:, None, None].to(images.dtype)
        return limit(mixed, self.clamp)

"""Layers with equalised learning rate (Karras 2018, section 4.1): weights are stored with unit
variance and scaled when used, so that Adam changes all of them at the same relative speed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import hardtanh, leaky_relu, linear

SLOPE = 0.2
GAIN = math.sqrt(2)
"""Keeps the variance after a leaky ReLU."""


FP16_CLAMP = 256.0
"""The limit of activations in fp16, whose largest number is 65504 (Karras 2020b, appendix D)."""


def limit(values: Tensor, clamp: float, gain: float = 1.0) -> Tensor:
    """Clamp to ± `clamp`·`gain`. 0: no limit, except in fp16."""
    if values.dtype == torch.float16:
        clamp = clamp or FP16_CLAMP
    # like `clamp`, whose derivative takes five passes instead of one
    return hardtanh(values, -clamp * gain, clamp * gain) if clamp else values


def rectify(values: Tensor, clamp: float = 0.0, gain: float = 1.0) -> Tensor:
    """Leaky ReLU in place, then `limit`."""
    return limit(leaky_relu(values, SLOPE, inplace=True), clamp, gain)


def normalized(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Return `weight` (out, in, k, k) and `styles` (n, in), scaled so that fp16 sums over their
    product cannot overflow; demodulation removes both factors (Karras 2020b, appendix D)."""
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel())
    return weight / largest, styles / styles.abs().amax(dim=1, keepdim=True)


class FullyConnectedLayer(nn.Module):
    """Values (n, `in_channels`) → (n, `out_channels`), then √2·leaky ReLU if `active`.

    `lr_multiplier` multiplies the effective learning rate of the layer.
    """

    def __init__(
        self, in_channels: int, out_channels: int, active: bool = False, lr_multiplier: float = 1.0,
        bias: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_channels,), float(bias)))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(in_channels), lr_multiplier
        self.active = active

    def forward(self, values: Tensor) -> Tensor:
        factor = GAIN if self.active else 1.0
        values = values * (self.weight_gain * factor)  # smaller than the weights
        values = linear(values, self.weight, self.bias * (self.bias_gain * factor))
        return rectify(values) if self.active else values

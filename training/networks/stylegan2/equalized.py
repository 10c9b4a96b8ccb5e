"""Layers with equalised learning rate (Karras 2018, section 4.1): weights are stored with unit
variance and scaled when used, so that Adam changes all of them at the same relative speed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

SLOPE = 0.2
GAIN = math.sqrt(2)
"""Keeps the variance after a leaky ReLU."""


def rectify(values: Tensor, clamp: float = 0.0) -> Tensor:
    """Leaky ReLU in place, limited to ± `clamp` (0: no limit)."""
    values = leaky_relu(values, SLOPE, inplace=True)
    return values.clamp(-clamp, clamp) if clamp else values


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

"""Layers and initial weights that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchStddev(nn.Module):
    """Appends one channel: the mean standard deviation over groups of samples.

    Karras et al. 2018, section 3. Samples are grouped by `group` neighbours (fewer where the batch
    does not divide). (n, c, h, w) → (n, c + 1, h, w).
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        group = next(size for size in range(min(self.group, count), 0, -1) if count % size == 0)
        grouped = images.reshape(count // group, group, channels, height, width).float()
        spread = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = spread.repeat_interleave(group)[:, None, None, None].to(images.dtype)
        return torch.cat([images, channel.expand(count, 1, height, width)], dim=1)


def initialise(network: nn.Module, scheme: str) -> None:
    """Give the convolutions, linear layers and norms of `network` fresh weights.

    `dcgan`: N(0, 0.02), norm weights N(1, 0.02), biases 0 (Radford 2016, section 4); `orthogonal`
    and `xavier` (uniform) for convolutions and linear layers; `default`: PyTorch's own.
    """
    if scheme == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = _bare_weight(layer)
            if scheme == "dcgan":
                nn.init.normal_(weight, 0.0, 0.02)
            elif scheme == "orthogonal":
                nn.init.orthogonal_(weight)
            else:
                nn.init.xavier_uniform_(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d) and layer.affine:
            if scheme == "dcgan":
                nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def _bare_weight(layer: nn.Module) -> Tensor:
    """The weight itself, also where spectral normalisation stands before it."""
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        original = layer.parametrizations.weight.original  # type: ignore[union-attr]
        assert isinstance(original, Tensor)
        return original
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight

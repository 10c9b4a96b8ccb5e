"""Layers of FastGAN's networks (Liu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from training.image_shape import ImageShape
from training.networks.conditioning import (
    ConditionalLayer,
    ConditionalSequential,
    generator_norm,
)
from training.networks.layers import (
    Dropout,
)  # fmt: skip
from training.options.efficient import FastganGenerator


class Glu(nn.Module):
    """GLU: the first half of the channels, weighted by σ of the second half (Dauphin 2017). (n,
    2c, h, w) → (n, c, h, w)."""

    def forward(self, maps: Tensor) -> Tensor:
        # not `chunk`: with bf16 maps before a doubling, its compiled gradient on a CPU is NaN
        values, gates = torch.unflatten(maps, 1, (2, -1)).unbind(1)
        # the sigmoid of a slice of a tensor takes four times as long as that of a contiguous tensor
        return values * gates.clone(memory_format=torch.preserve_format).sigmoid()


class LearnedNoise(nn.Module):
    """Add the same Gaussian noise to all channels, with a learned weight that starts at 0.

    It is drawn per image while training and fixed when sampling, so that an image depends only on
    its latent.
    """

    fixed: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("fixed", torch.randn(1, 1, height, width))

    def forward(self, maps: Tensor) -> Tensor:
        noise = self.fixed.to(maps.dtype)
        if self.training:
            noise = torch.randn_like(maps[:, :1])
        return maps + self.weight.to(maps.dtype) * noise


class SkipLayerExcitation(nn.Module):
    """Large maps (n, out_channels, H, W) times a weight in (0, 1) from small ones (n,
    in_channels, h, w): σ of a 1×1 convolution of SiLU of a 4×4 convolution of their 4×4 averages
    (eq. 1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gather = nn.Conv2d(in_channels, out_channels, 4, bias=False)
        self.weigh = nn.Conv2d(out_channels, out_channels, 1, bias=False)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        gathered = nn.functional.silu(self.gather(adaptive_avg_pool2d(small, 4)))
        weights: Tensor = self.weigh(gathered).sigmoid()
        return large * weights


class UpBlock(ConditionalLayer):
    """Doubling to `size`, 3×3, norm, GLU; the `long` kind adds noise and a second 3×3."""

    def __init__(
        self,
        options: FastganGenerator,
        shape: ImageShape,
        maps: tuple[int, int],
        size: tuple[int, int],
        long: bool,
    ) -> None:
        super().__init__()
        below, above = maps
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
        for given in (below, above) if long else (below,):
            layers.append(nn.Conv2d(given, above * 2, 3, 1, 1, bias=False))
            layers += [LearnedNoise(*size)] if long else []
            layers += [*generator_norm("batch", options.condition, above * 2, shape), Glu()]
        self.layers = ConditionalSequential(layers)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        doubled: Tensor = self.layers(maps, labels)
        return doubled


class DownBlock(nn.Module):
    """The mean of two paths to half the size: 4×4 stride 2 then 3×3, and pooling then 1×1; norm
    and leaky ReLU after each convolution."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        halved: Tensor = self.dropout((self.main(maps) + self.direct(maps)) / 2)
        return halved


class Decoder(nn.Module):
    """Maps of about 8×8 positions → images in [-1, 1], doubled `doublings` times."""

    def __init__(self, maps: int, channels: int, count: int, width: int) -> None:
        super().__init__()
        sizes = [max(1, width // 2 * multiplier) for multiplier in (4, 2, 2, 1)][:count]
        layers: list[nn.Module] = []
        for above in sizes:
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(maps, above * 2, 3, 1, 1, bias=False),
                nn.BatchNorm2d(above * 2),
                Glu(),
            ]
            maps = above
        self.layers = nn.Sequential(*layers, nn.Conv2d(maps, channels, 3, 1, 1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.tanh(self.layers(maps))


def crop_quarter(maps: Tensor, row: int, column: int) -> Tensor:
    """Return the upper (row 0) or lower, left (column 0) or right quarter of maps (n, c, h, w)."""
    height, width = maps.shape[2] // 2, maps.shape[3] // 2
    return maps[:, :, row * height :, column * width :][:, :, :height, :width]

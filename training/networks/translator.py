"""The generator of CycleGAN: from images to images (Zhu 2017, appendix 7.2, after Johnson 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Generator
from training.networks.layers import init_weights
from training.options.translation import TranslatorGenerator

SCALE = 4
"""The residual blocks work at this fraction of the size."""
LEAST = 4 * SCALE


class TranslatorG(Generator):
    """Images (n, channels, height, width) in [-1, 1] → images of the same shape.

    It has the place of other generators, but `forward` takes images, not latents: `z_dim` is 0.
    """

    z_dim = 0

    def __init__(self, options: TranslatorGenerator, shape: ImageShape) -> None:
        super().__init__()
        if shape.height % SCALE or shape.width % SCALE or min(shape.height, shape.width) < LEAST:
            raise UserError(
                f"resolution: {shape.width}×{shape.height} px is not supported by the generator "
                f'"translator" (multiples of {SCALE} px, at least {LEAST}); use 64, 128 or 256'
            )
        width = options.width
        layers = [
            nn.ReflectionPad2d(3),
            *_normed(nn.Conv2d(shape.channels, width, 7)),
            *_normed(nn.Conv2d(width, 2 * width, 3, 2, 1)),
            *_normed(nn.Conv2d(2 * width, 4 * width, 3, 2, 1)),
            *(ResidualBlock(4 * width) for _ in range(options.blocks)),
            *_normed(*_double(options.upsample, 4 * width, 2 * width)),
            *_normed(*_double(options.upsample, 2 * width, width)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, shape.channels, 7),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)
        init_weights(self, options.init)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002 (interface)
        translated: Tensor = self.layers(images)
        return translated


class ResidualBlock(nn.Module):
    """Maps (n, c, h, w) → maps of the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_normed(nn.Conv2d(channels, channels, 3)),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + torch.as_tensor(self.layers(maps))


def _normed(*layers: nn.Module) -> list[nn.Module]:
    """Return the layers with instance norm, which has no weights, and ReLU."""
    channels = layers[-1].out_channels
    return [*layers, nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]  # type: ignore[arg-type]


def _double(how: str, below: int, above: int) -> list[nn.Module]:
    if how == "transposed":
        return [nn.ConvTranspose2d(below, above, 3, 2, 1, 1)]
    return [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(below, above, 3)]


def translator_generator(options: TranslatorGenerator, shape: ImageShape) -> Generator:
    return TranslatorG(options, shape)

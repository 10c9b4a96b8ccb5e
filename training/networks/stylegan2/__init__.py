"""StyleGAN2 (Karras et al. 2020a) with the details of StyleGAN2-ADA (2020b).

Modules and weights have the names of the published code, so that its weights can be loaded.
"""

from __future__ import annotations

from training.image_shape import ImageShape
from training.networks.base import Discriminator, Generator
from training.networks.stylegan2.discriminator import StyleGan2D
from training.networks.stylegan2.synthesis import StyleGan2G
from training.options.architectures import StyleGan2Discriminator, StyleGan2Generator

__all__ = ["StyleGan2D", "StyleGan2G", "stylegan2_discriminator", "stylegan2_generator"]


def stylegan2_generator(options: StyleGan2Generator, shape: ImageShape) -> Generator:
    return StyleGan2G(options, shape)


def stylegan2_discriminator(
    options: StyleGan2Discriminator, shape: ImageShape, _codes: int
) -> Discriminator:
    return StyleGan2D(options, shape)

"""StyleGAN3 (Karras et al. 2021), configurations T and R.

Modules and weights have the names of the published code, so that its weights can be loaded. The
discriminator is StyleGAN2's.
"""

from __future__ import annotations

from training.image_shape import ImageShape
from training.networks.base import Generator
from training.networks.stylegan3.synthesis import StyleGan3G
from training.options.styled import StyleGan3Generator

__all__ = ["StyleGan3G", "stylegan3_generator"]


def stylegan3_generator(options: StyleGan3Generator, shape: ImageShape) -> Generator:
    return StyleGan3G(options, shape)

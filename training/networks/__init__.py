"""Registry of generators and discriminators by their names in the configuration.

To add one: a file here with its builders, its options class in `training.options.architectures`,
and a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.image_shape import ImageShape
from training.networks.autoencoder import autoencoder_discriminator
from training.networks.base import (
    Discriminator,
    DiscriminatorOutput,
    Generator,
    deinterleave,
    interleave,
)  # fmt: skip
from training.networks.conditioning import latent_codes
from training.networks.dcgan import dcgan_discriminator, dcgan_generator
from training.networks.fastgan import fastgan_discriminator, fastgan_generator
from training.networks.mlp import mlp_discriminator, mlp_generator
from training.networks.patchgan import patchgan_discriminator
from training.networks.projected import projected_discriminator
from training.networks.r3gan import r3gan_discriminator, r3gan_generator
from training.networks.resnet import resnet_discriminator, resnet_generator
from training.networks.sizes import name_section
from training.networks.stylegan2 import stylegan2_discriminator, stylegan2_generator
from training.networks.stylegan3 import stylegan3_generator
from training.networks.translator import translator_generator

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Discriminator",
    "DiscriminatorOutput",
    "Generator",
    "ImageShape",
    "build_discriminator",
    "build_generator",
    "deinterleave",
    "interleave",
    "latent_codes",
]  # fmt: skip

GENERATORS: dict[str, Callable[[Any, ImageShape], Generator]] = {
    "dcgan": dcgan_generator,
    "fastgan": fastgan_generator,
    "mlp": mlp_generator,
    "r3gan": r3gan_generator,
    "resnet": resnet_generator,
    "stylegan2": stylegan2_generator,
    "stylegan3": stylegan3_generator,
    "translator": translator_generator,
}
DISCRIMINATORS: dict[str, Callable[[Any, ImageShape, int], Discriminator]] = {
    "autoencoder": autoencoder_discriminator,
    "dcgan": dcgan_discriminator,
    "fastgan": fastgan_discriminator,
    "mlp": mlp_discriminator,
    "patchgan": patchgan_discriminator,
    "projected": projected_discriminator,
    "r3gan": r3gan_discriminator,
    "resnet": resnet_discriminator,
    "stylegan2": stylegan2_discriminator,
}


def build_generator(options: Any, shape: ImageShape) -> Generator:
    """Build the generator described by the options, with new weights.

    Raises:
        UserError: the options do not fit the images.
    """
    with name_section("generator", options):
        return GENERATORS[options.name](options, shape)


def build_discriminator(options: Any, shape: ImageShape, codes: int = 0) -> Discriminator:
    """Build the discriminator described by the options, with new weights; `codes` is the number of
    InfoGAN codes that it predicts.

    Raises:
        UserError: the options do not fit the images.
    """
    with name_section("discriminator", options):
        return DISCRIMINATORS[options.name](options, shape, codes)

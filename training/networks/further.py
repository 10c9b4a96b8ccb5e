"""Registry of the networks that a training method has beside generator and discriminator.

To add one: options in `training.options.methods`, a builder here, and the losses in
`training.methods`. The state of a run does the rest: see `FurtherNetwork`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from training.image_shape import ImageShape
from training.networks import build_discriminator, build_generator
from training.networks.base import Discriminator, Generator
from training.networks.encoder import Classifier, Encoder
from training.networks.pairs import PairHead, feature_count
from training.networks.sizes import name_section

if TYPE_CHECKING:
    from training.config import Config


@dataclass(frozen=True)
class FurtherNetwork:
    """A network beside generator and discriminator.

    It is trained with the optimiser of the one in `trained_with`, so also in the same step, with
    the same learning rate, clipping and loss scale. If `is_averaged`, its moving average is kept,
    too. Its weights are in checkpoints under its name, its average under `NAME_average`.
    """

    network: nn.Module
    trained_with: Literal["generator", "discriminator"]
    is_averaged: bool = False


Networks = dict[str, FurtherNetwork]
Builder = Callable[["Config", ImageShape, Generator, Discriminator], Networks]


def _none(_config: Config, _shape: ImageShape, _g: Generator, _d: Discriminator) -> Networks:
    return {}


def _bigan(config: Config, shape: ImageShape, g: Generator, d: Discriminator) -> Networks:
    options = config.method
    encoder = _encoder(config, shape, g, options.stochastic)  # type: ignore[union-attr]
    head = PairHead(feature_count(d, shape), g.z_dim, options.pair_widths)  # type: ignore[union-attr]
    return {
        "encoder": FurtherNetwork(encoder, "generator", is_averaged=True),
        "pair_head": FurtherNetwork(head, "discriminator"),
    }


def _vae_gan(config: Config, shape: ImageShape, g: Generator, _d: Discriminator) -> Networks:
    encoder = _encoder(config, shape, g, stochastic=True)
    return {"encoder": FurtherNetwork(encoder, "generator", is_averaged=True)}


def _encoder(config: Config, shape: ImageShape, g: Generator, stochastic: bool) -> Encoder:
    options = config.method.encoder  # type: ignore[union-attr]
    with name_section("method.encoder", options):
        return Encoder(options, shape, g.z_dim, stochastic)


def _triple_gan(config: Config, shape: ImageShape, _g: Generator, _d: Discriminator) -> Networks:
    options = config.method.classifier  # type: ignore[union-attr]
    with name_section("method.classifier", options):
        classifier = Classifier(options, shape)
    return {"classifier": FurtherNetwork(classifier, "generator", is_averaged=True)}


def _cyclegan(config: Config, shape: ImageShape, _g: Generator, _d: Discriminator) -> Networks:
    generator = build_generator(config.generator, shape)
    discriminator = build_discriminator(config.discriminator, shape)
    return {
        "generator_back": FurtherNetwork(generator, "generator", is_averaged=True),
        "discriminator_back": FurtherNetwork(discriminator, "discriminator"),
    }


FURTHER_NETWORKS: dict[str, Builder] = {
    "gan": _none, "bigan": _bigan, "cyclegan": _cyclegan, "triple-gan": _triple_gan,
    "vae-gan": _vae_gan,
}  # fmt: skip
"""The builders by the name of the method."""


def has_further_networks(config: Config) -> bool:
    """Return True if the method of `config` has networks beside generator and discriminator."""
    return FURTHER_NETWORKS[config.method.name] is not _none


def build_further(
    config: Config, shape: ImageShape, generator: Generator, discriminator: Discriminator
) -> Networks:
    """Build the networks that the method of `config` needs beside these two, with new weights.

    Raises:
        UserError: the options do not fit the images.
    """
    return FURTHER_NETWORKS[config.method.name](config, shape, generator, discriminator)


def trained_with(which: str, further: Networks) -> dict[str, nn.Module]:
    """Return those of the networks that have the optimiser of `which`, by name."""
    return {name: one.network for name, one in further.items() if one.trained_with == which}

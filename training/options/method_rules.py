"""Option conflicts of training methods."""

from __future__ import annotations

from collections.abc import Iterator

from training.config import Config
from training.options.architectures import code_count, is_semi_supervised
from training.options.losses import LOSS_PROPERTIES
from training.options.methods import BiganMethod, GanMethod, VaeGanMethod


def method_conflicts(config: Config) -> Iterator[str]:
    """Check options that a method with further networks does not support."""
    if isinstance(config.method, GanMethod):
        return
    key = f'method.name "{config.method.name}"'
    if config.updates == "simultaneous":
        yield f"updates: simultaneous updates train two networks from one pass, {key} has more"
    if config.unroll.steps:
        yield f"unroll.steps: not supported with {key}, whose further networks are not unrolled"
    if config.discriminator.packing > 1:
        yield f"discriminator.packing: not supported with {key}"
    if isinstance(config.method, BiganMethod):
        yield from _pairs(config, key)
    if isinstance(config.method, VaeGanMethod):
        yield from _variational(config, key)


def _pairs(config: Config, key: str) -> Iterator[str]:
    """Check options that do not fit a discriminator of images and latents."""
    discriminator, loss = config.discriminator, config.loss
    if (
        discriminator.condition != "none"
        or discriminator.classifier
        or is_semi_supervised(discriminator)
        or code_count(config.generator)
    ):
        yield (
            f"discriminator.condition: with {key} the discriminator compares images with latents; "
            "labels, discriminator.classifier and InfoGAN codes are not supported"
        )
    if config.replay.size:
        yield f"replay.size: not supported with {key}: earlier images have other latents"
    if loss.gp:
        yield (
            f"loss.gp: with {key} an image between a real and a fake one has no latent; use "
            "loss.r1 or loss.dragan"
        )
    if loss.feature_matching:
        yield f"loss.feature_matching: not supported with {key}"


def _variational(config: Config, key: str) -> Iterator[str]:
    """Check options that do not fit a variational autoencoder."""
    if config.latent != "gaussian":
        yield f'latent: {key} compares the encoder\'s Gaussians with N(0, I); use "gaussian"'
    if code_count(config.generator):
        yield f"generator.categorical, generator.continuous: {key} encodes Gaussian latents only"
    if not LOSS_PROPERTIES[config.loss.name].logistic:
        yield (
            f"loss.name: {key} has a third cross-entropy, of reconstructions; use minimax or "
            "non-saturating"
        )
    if not config.loss.adversarial:
        yield f"loss.adversarial: with 0, {key} has no use for its discriminator"

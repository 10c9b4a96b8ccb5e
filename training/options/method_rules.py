"""Option conflicts of training methods."""

from __future__ import annotations

from collections.abc import Iterator

from training.config import Config
from training.options.architectures import DcganDiscriminator, code_count, is_semi_supervised
from training.options.losses import LOSS_PROPERTIES
from training.options.methods import (
    BiganMethod,
    CycleganMethod,
    GanMethod,
    TripleGanMethod,
    VaeGanMethod,
)
from training.options.styled import StyledGeneratorOptions
from training.options.translation import PatchganDiscriminator, TranslatorGenerator

INVERTIBLE = frozenset(
    (
        "minimax", "non-saturating", "kl", "lsgan", "hinge", "random-hinge", "wgan", "rsgan",
        "rasgan", "ralsgan", "rahinge",
    )
)  # fmt: skip
"""Losses that are the same after real and fake, and the sides of the boundary, are exchanged."""


def method_conflicts(config: Config) -> Iterator[str]:
    """Check options that a method with further networks does not support."""
    key = f'method.name "{config.method.name}"'
    if config.method.sets == 1:
        yield from _one_set(config, key)
    if isinstance(config.method, GanMethod):
        return
    if config.updates == "simultaneous":
        yield f"updates: simultaneous updates train two networks from one pass, {key} has more"
    if config.unroll.steps:
        yield f"unroll.steps: not supported with {key}, whose further networks are not unrolled"
    if config.discriminator.packing > 1:
        yield f"discriminator.packing: not supported with {key}"
    if isinstance(config.method, BiganMethod):
        yield from _pairs(config, key)
    if isinstance(config.method, CycleganMethod):
        yield from _two_sets(config, key)
    if isinstance(config.method, TripleGanMethod):
        yield from _three_players(config, key)
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
    yield from _mixed_styles(config, key)
    if config.replay.size:
        yield f"replay.size: not supported with {key}: earlier images have other latents"
    if loss.name not in INVERTIBLE:
        yield (
            f"loss.name: with {key} the encoder learns the discriminator's loss with exchanged "
            f"targets, which {loss.name} has not; use {', '.join(sorted(INVERTIBLE))}"
        )
    if loss.gp:
        yield (
            f"loss.gp: with {key} an image between a real and a fake one has no latent; use "
            "loss.r1 or loss.dragan"
        )
    for name in ("feature_matching", "pulling_away", "feature_spread"):
        if getattr(loss, name):
            yield f"loss.{name}: not supported with {key}"


def _mixed_styles(config: Config, key: str) -> Iterator[str]:
    """Check that an image follows from one latent, which an encoder shall find."""
    generator = config.generator
    if isinstance(generator, StyledGeneratorOptions) and generator.style_mixing_prob:
        yield (
            f"generator.style_mixing_prob: with {key} each image must follow from its own latent; "
            "set it to 0"
        )


def _one_set(config: Config, key: str) -> Iterator[str]:
    """Check options that only translation between two sets of images supports."""
    if config.data.shards_b:
        yield (
            f"data.shards_b: {key} learns from one set of images; leave --shards-b out, or use "
            "--preset cyclegan64"
        )
    if isinstance(config.generator, TranslatorGenerator):
        yield f'generator.name: "translator" has no latents, which {key} needs; use another'


def _two_sets(config: Config, key: str) -> Iterator[str]:
    """Check options that do not fit translation between two sets of images."""
    discriminator, loss = config.discriminator, config.loss
    if not isinstance(config.generator, TranslatorGenerator):
        yield f'generator.name: {key} translates images; use "translator"'
    if not isinstance(discriminator, PatchganDiscriminator | DcganDiscriminator):
        yield f'discriminator.name: not supported with {key}; use "patchgan" or "dcgan"'
    if discriminator.condition != "none" or discriminator.classifier:
        yield f"discriminator.condition: {key} uses no labels"
    if is_semi_supervised(discriminator):
        yield f"discriminator.semi_supervised: {key} uses no labels"
    if config.data.channels == 4:
        yield f"data.channels: {key} does not translate transparency; 3 reads it over white"
    kind = LOSS_PROPERTIES[loss.name]
    if kind.vector or kind.options:
        yield f"loss.name: {loss.name} is for one discriminator, {key} has two"
    if loss.pulling_away:
        yield f"loss.pulling_away: {key} has no latents whose images could be alike"
    for name in ("gp", "dragan", "r1", "r2"):
        if getattr(loss, name):
            yield f"loss.{name}: penalties are for one discriminator, {key} has two"
    if config.freeze_d:
        yield f"freeze_d: {key} has two discriminators; leave it out"
    if config.cuda_graphs:
        yield f"cuda_graphs: not supported with {key}"


def _variational(config: Config, key: str) -> Iterator[str]:
    """Check options that do not fit a variational autoencoder."""
    if config.latent != "gaussian":
        yield f'latent: {key} compares the encoder\'s Gaussians with N(0, I); use "gaussian"'
    if code_count(config.generator):
        yield f"generator.categorical, generator.continuous: {key} encodes Gaussian latents only"
    yield from _mixed_styles(config, key)
    yield from _third_term(config, key, "reconstructions")
    if not config.loss.adversarial:
        yield f"loss.adversarial: with 0, {key} has no use for its discriminator"


def _three_players(config: Config, key: str) -> Iterator[str]:
    """Check options that do not fit a classifier as the third player."""
    discriminator = config.discriminator
    if "none" in (config.generator.condition, discriminator.condition):
        yield (
            f"generator.condition, discriminator.condition: {key} compares images with their "
            "labels; set both"
        )
    if config.method.consistency and not config.method.classifier.dropout:  # type: ignore[union-attr]
        yield (
            "method.consistency: compares predictions with different dropout; set "
            "method.classifier.dropout"
        )
    if discriminator.classifier or is_semi_supervised(discriminator):
        yield (
            "discriminator.classifier, discriminator.semi_supervised: with "
            f"{key} the classifier is a network of its own"
        )
    if code_count(config.generator):
        yield f"generator.categorical, generator.continuous: not supported with {key}"
    if config.labels == "if-any":
        yield f'labels: {key} needs labels of some images; use "required"'
    if config.loss.feature_matching:
        yield f"loss.feature_matching: not supported with {key}"
    yield from _third_term(config, key, "the classifier's labels")


def _third_term(config: Config, key: str, of: str) -> Iterator[str]:
    """Check options that do not fit a third cross-entropy of the discriminator."""
    if not LOSS_PROPERTIES[config.loss.name].logistic:
        yield (
            f"loss.name: {key} has a third cross-entropy, of {of}; use minimax, kl or "
            "non-saturating"
        )
    if getattr(config.discriminator, "norm", "") == "joint":
        yield (
            f'discriminator.norm: "joint" needs real and fake images in one pass, but {key} has '
            f"a pass of {of}"
        )

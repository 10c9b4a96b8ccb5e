"""Option conflicts of targets, labels and packing."""

from __future__ import annotations

from collections.abc import Iterator

from training.config import Config, count_clusters
from training.options.architectures import (
    AutoencoderDiscriminator,
    StyleGan2Discriminator,
    code_count,
    is_semi_supervised,
)
from training.options.efficient import ProjectedDiscriminator
from training.options.losses import LOSS_PROPERTIES, LOSSES_WITH_TARGETS
from training.options.translation import PatchganDiscriminator

CROSS_ENTROPY = LOSSES_WITH_TARGETS - {"lsgan"}
"""Those of them that have no minimum if a target is outside 0 to 1."""

_WITHOUT_CODES = (
    AutoencoderDiscriminator,
    PatchganDiscriminator,
    ProjectedDiscriminator,
    StyleGan2Discriminator,
)
"""Discriminators that cannot predict InfoGAN's codes."""

LSGAN_G_TARGET = 1.0
"""The target of the lsgan loss for the generator's images."""


def mean_targets(config: Config) -> tuple[float, float]:
    """Return the mean targets of real and of fake images, after flips."""
    real, fake = (
        sum(label) / 2 if isinstance(label, tuple) else label
        for label in (config.label_real, config.label_fake)
    )
    kept = 1 - config.label_flip
    return kept * real + (1 - kept) * fake, kept * fake + (1 - kept) * real


def target_conflicts(config: Config) -> Iterator[str]:
    """Check for targets that would train the generator in the wrong direction, or not at all.

    The gradients of these losses are linear in the targets, so only their means matter: the logits
    of real images rise and those of fake images fall only if the mean target of real images is the
    higher one, and every generator raises the logits of its images (that of lsgan up to 1).
    """
    name = config.loss.name
    if name not in LOSSES_WITH_TARGETS:
        return
    real, fake = mean_targets(config)
    if real <= fake:
        yield (
            f"label_real, label_fake, label_flip: the mean target of real images ({real:g}) is not "
            f"above that of fake images ({fake:g}), so the generator would be trained in the wrong "
            "direction; set a higher label_real, and label_flip below 0.5"
        )
    if name == "lsgan" and (real + fake) / 2 > LSGAN_G_TARGET:
        yield (
            f"label_real, label_fake: the target of the generator in the lsgan loss is "
            f"{LSGAN_G_TARGET:g}, which is nearer to the mean target of fake images ({fake:g}) "
            f"than to that of real images ({real:g}); choose targets whose mean is at most 1"
        )
    outside = [mean for mean in (real, fake) if not 0 <= mean <= 1]
    if name in CROSS_ENTROPY and outside:
        yield (
            f"label_real, label_fake: the {name} loss has no minimum for a mean target of "
            f"{outside[0]:g}, logits would grow without limit; choose targets with a mean of 0 to 1"
        )


def label_conflicts(config: Config) -> Iterator[str]:
    generator, discriminator = config.generator, config.discriminator
    looks = discriminator.condition != "none" or discriminator.classifier
    if generator.condition != "none" and not looks:
        yield (
            "generator.condition: has no effect unless the discriminator also uses labels; set "
            "discriminator.condition or discriminator.classifier"
        )
    if looks and generator.condition == "none":
        yield (
            "discriminator.condition, discriminator.classifier: the generator uses no labels; set "
            "generator.condition"
        )
    if discriminator.classifier and not config.loss.classifier:
        yield "loss.classifier: with 0, discriminator.classifier would not be trained"
    if code_count(generator) and isinstance(discriminator, _WITHOUT_CODES):
        yield (
            "generator.categorical, generator.continuous: not supported by the "
            f"{discriminator.name} discriminator; use another, or leave them out"
        )
    if code_count(generator) and not config.loss.codes:
        yield "loss.codes: with 0, the codes of the generator would not be trained"
    if code_count(generator) and config.replay.size:
        yield "replay.size: not supported with InfoGAN codes; set it to 0"


def semi_supervised_conflicts(config: Config) -> Iterator[str]:
    discriminator, loss = config.discriminator, config.loss
    if config.data.labelled and count_clusters(config.data.label):
        yield "data.labelled: has no effect on clusters (data.label), which all images have; set 0"
    if not is_semi_supervised(discriminator):
        if config.data.labelled and not config.method.learns_labels:
            yield (
                "data.labelled: has an effect only with discriminator.semi_supervised, or with "
                'method.name "triple-gan"'
            )
        return
    if not LOSS_PROPERTIES[loss.name].logistic:
        yield (
            f"discriminator.semi_supervised: the {loss.name} loss has no probabilities for the "
            "K + 1 classes; set loss.name to minimax, kl or non-saturating"
        )
    if (
        discriminator.classifier
        or discriminator.condition != "none"
        or code_count(config.generator)
    ):
        yield (
            "discriminator.semi_supervised: cannot be combined with conditions, "
            "discriminator.classifier or InfoGAN codes"
        )
    if not loss.classifier:
        yield "loss.classifier: with 0, the labels would not be learned"


def packing_conflicts(config: Config) -> Iterator[str]:
    discriminator = config.discriminator
    if discriminator.packing == 1:
        return
    looks = (
        discriminator.condition != "none"
        or discriminator.classifier
        or is_semi_supervised(discriminator)
    )
    if looks or code_count(config.generator):
        yield "discriminator.packing: cannot be combined with labels or InfoGAN codes"
    for name in ("batch", "micro_batch"):
        if getattr(config, name) % discriminator.packing:
            yield f"{name}: must be a multiple of discriminator.packing = {discriminator.packing}"

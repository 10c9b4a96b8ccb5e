"""Option conflicts of losses on vectors and on the errors of an autoencoder, and of discriminators
on frozen features."""

from __future__ import annotations

from collections.abc import Iterator

from training.config import Config
from training.options.algorithm import LossOptions
from training.options.architectures import (
    AutoencoderDiscriminator,
    MlpGenerator,
    is_semi_supervised,
)
from training.options.base import VectorOptions
from training.options.efficient import ProjectedDiscriminator
from training.options.losses import LOSS_PROPERTIES, names_with

_TWO_POSITIONS = 64
"""The side in pixels from which maps at stride 32 have more than one position."""
_PENALTIES = ("gp", "dragan", "r1", "r2")


def penalties_of(config: Config) -> list[str]:
    """Return the gradient penalties that are on."""
    return [name for name in _PENALTIES if getattr(config.loss, name)]


def loss_kind_conflicts(config: Config) -> Iterator[str]:
    """Check that the discriminator has the outputs that the loss compares, and that options of
    single losses are theirs."""
    loss, kind = config.loss, LOSS_PROPERTIES[config.loss.name]
    plain = LossOptions()
    for name, properties in LOSS_PROPERTIES.items():
        for key in properties.options:
            if name != loss.name and getattr(loss, key) != getattr(plain, key):
                yield f"loss.{key}: has an effect only with loss.name {name}"
    if kind.vector:
        yield from _vectors(config)
    elif getattr(config.discriminator, "outputs", 1) > 1:
        yield (
            f"discriminator.outputs: the {loss.name} loss compares single logits; set it to 1, or "
            f"loss.name to one of {names_with('vector')}"
        )
    yield from _energies(config)
    if loss.feature_spread and not isinstance(config.discriminator, ProjectedDiscriminator):
        yield 'loss.feature_spread: has an effect only with discriminator.name "projected"'


def smallest_pass(config: Config, world_size: int = 1) -> int:
    """Return the smallest number of images that pass the networks together: those of the last
    micro-batch of one of `world_size` processes, which share a batch."""
    size = config.micro_batch or config.batch
    parts = config.batch // world_size, -(-config.batch // world_size)
    return min(part % size or size for part in parts)


def small_pass_conflicts(config: Config, world_size: int = 1) -> Iterator[str]:
    """Check that at least two samples pass the networks together if they are compared."""
    loss, packing = config.loss, config.discriminator.packing
    needs = [
        (f"loss.{name} compares", 2 * packing)
        for name in ("pulling_away", "feature_spread")
        if getattr(loss, name)
    ]
    if LOSS_PROPERTIES[loss.name].vector:
        needs.append((f"the {loss.name} loss compares", 2 * packing))
    is_split = world_size == 1 or not config.sync_batch_norm
    if is_split and (key := _norm_of_single_values(config)):
        needs.append((f'{key} "batch" normalises', 2))
    found = smallest_pass(config, world_size)
    for what, least in needs:
        if config.batch // world_size < least:
            yield (
                f"batch: {what} the samples of each process; set at least {least * world_size} "
                f"({least} per process)"
            )
        if found < least:
            yield (
                f"micro_batch: {what} samples that pass the networks together, at least {least} "
                f"images, but the smallest micro-batch has {found}; set another number, or 0"
            )


def _norm_of_single_values(config: Config) -> str:
    """Return the key of a batch norm that has one value per channel and sample; empty: none."""
    generator, discriminator = config.generator, config.discriminator
    if isinstance(generator, MlpGenerator) and generator.norm == "batch":
        return "generator.norm"
    if isinstance(discriminator, ProjectedDiscriminator) and discriminator.norm == "batch":
        side = discriminator.size or config.resolution
        return "discriminator.norm" if 0 < side < _TWO_POSITIONS else ""
    return ""


def projected_conflicts(config: Config, discriminator: ProjectedDiscriminator) -> Iterator[str]:
    """Check options that do not fit discriminators on frozen features."""
    joint, single = discriminator.norm == "joint", config.method.name == "gan"
    penalties, pixels = penalties_of(config), discriminator.pixel_width > 0
    if penalties and pixels and not single:
        yield (
            f"loss.{penalties[0]}: with discriminator.pixel_width it limits that discriminator, "
            f"which method.name {config.method.name} does not support"
        )
    elif penalties and joint and not pixels:
        yield (
            'discriminator.norm: "joint" needs real and fake images in one pass, but the '
            f"penalty {penalties[0]} uses one kind; with discriminator.pixel_width it limits that "
            "discriminator"
        )
    if LOSS_PROPERTIES[config.loss.name].unbounded and not config.loss.weight_clip:
        if not discriminator.spectral:
            yield (
                f"discriminator.spectral: {config.loss.name} needs bounded gradients of the "
                "discriminators on features"
            )
        elif pixels and not (discriminator.pixel_spectral or penalties):
            yield (
                f"discriminator.pixel_spectral: {config.loss.name} needs bounded gradients of the "
                "pixel discriminator; set it to true, or loss.r1"
            )
    if joint and config.unroll.steps:
        yield (
            'unroll.steps: not supported with discriminator.norm "joint", which works differently '
            "in the step of each network"
        )
    if joint and config.compile:
        yield (
            'compile: not supported with discriminator.norm "joint", which works differently '
            "in the step of each network"
        )
    if not pixels:
        plain = ProjectedDiscriminator()
        for name in ("pixel_spectral", "pixel_logits", "features_kimg"):
            if getattr(discriminator, name) != getattr(plain, name):
                yield f"discriminator.{name}: has an effect only with discriminator.pixel_width"
        if discriminator.condition == "pixels":
            yield 'discriminator.condition: "pixels" needs discriminator.pixel_width'
    elif discriminator.features_kimg and not single:
        yield f"discriminator.features_kimg: not supported by method.name {config.method.name}"
    elif discriminator.features_kimg and config.unroll.steps:
        yield "unroll.steps: not supported with discriminator.features_kimg"
    elif not (discriminator.pixel_spectral or discriminator.spectral):
        yield "discriminator.pixel_spectral: has no effect without discriminator.spectral"


def _vectors(config: Config) -> Iterator[str]:
    """Check options that do not fit a loss on vectors."""
    loss, discriminator = config.loss, config.discriminator
    if not isinstance(discriminator, VectorOptions):
        yield (
            f"loss.name: {loss.name} compares vectors, but the {discriminator.name} discriminator "
            "has logits alone; set discriminator.name to dcgan, mlp or resnet"
        )
    if discriminator.condition == "projection":
        yield (
            f"discriminator.condition: the projection adds to a logit, but {loss.name} compares "
            'vectors; use "embedding"'
        )
    if is_semi_supervised(discriminator):
        yield f"discriminator.semi_supervised: {loss.name} compares vectors, not probabilities"
    if loss.own_step:
        yield f"loss.own_step: not supported with {loss.name}, whose penalties need fake images"


def _energies(config: Config) -> Iterator[str]:
    """Check options that do not fit an autoencoder, and that it has a loss on its errors."""
    loss, discriminator, kind = config.loss, config.discriminator, LOSS_PROPERTIES[config.loss.name]
    is_autoencoder = isinstance(discriminator, AutoencoderDiscriminator)
    if is_autoencoder != kind.energy:
        yield (
            f"loss.name: {loss.name} needs logits, an autoencoder has errors; set it to one of "
            f"{names_with('energy')}"
            if is_autoencoder
            else f"loss.name: {loss.name} compares the errors of an autoencoder; set "
            'discriminator.name to "autoencoder"'
        )
    if not is_autoencoder:
        return
    for name in penalties_of(config):
        yield (
            f"loss.{name}: limits the gradient of a logit, but the output of an autoencoder is "
            "its error, which the loss bounds itself; set it to 0"
        )
    if config.augment.ada and config.augment.p == "adaptive":
        yield (
            "augment.p: an autoencoder has no sign that tells overfitting, so p cannot adapt; set "
            "a number"
        )
    if config.stop.chance_kimg:
        yield "stop.chance_kimg: an autoencoder does not guess: its errors have no chance level"
    if config.stop.loss_kimg:
        yield "stop.loss_kimg: a small error of an autoencoder is its aim, not a sign to stop"

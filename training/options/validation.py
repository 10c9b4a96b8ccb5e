"""Option conflicts: pure rules over a configuration, without torch."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.contract import UserError
from training.config import BurnInOptions, Config
from training.options.architectures import (
    DcganDiscriminator,
    FastganDiscriminator,
    ProjectedDiscriminator,
    R3ganDiscriminator,
    R3ganGenerator,
    StyleGan2Generator,
    code_count,
    is_semi_supervised,
)  # fmt: skip

LOSSES_WITH_TARGETS = frozenset({"minimax", "non-saturating", "lsgan", "rasgan"})
"""The losses whose discriminator has targets."""
CROSS_ENTROPY = LOSSES_WITH_TARGETS - {"lsgan"}
"""Those of them that have no minimum if a target is outside 0 to 1."""
LSGAN_G_TARGET = 1.0
"""The target of the lsgan loss for the generator's images."""


def check_compatible(config: Config) -> None:
    """Raise if parts of a configuration cannot work together.

    Raises:
        UserError: one line with the keys and the reason.
    """
    for checks in (
        _losses,
        _targets,
        _penalties,
        _updates,
        _engine,
        _labels,
        _semi_supervised,
        _packing,
        _unused_options,
        _style,
        _kinds,
    ):
        for complaint in checks(config):
            raise UserError(complaint)


def _penalised(config: Config) -> list[str]:
    """Return the gradient penalties that are on."""
    return [name for name in ("gp", "dragan", "r1", "r2") if getattr(config.loss, name)]


def _losses(config: Config) -> Iterator[str]:
    loss, spectral = config.loss, config.discriminator.spectral
    smooth = (config.label_real, config.label_fake, config.label_flip) != (1.0, 0.0, 0.0)
    if smooth and loss.name not in LOSSES_WITH_TARGETS:
        yield (
            f"label_real, label_fake, label_flip: the {loss.name} loss has no labels; it is "
            f"{', '.join(sorted(LOSSES_WITH_TARGETS))} that have"
        )
    if loss.name == "wgan" and not (loss.weight_clip or spectral or _penalised(config)):
        yield (
            "loss.name: wgan measures a distance only where the discriminator's slope is bounded; "
            "set loss.weight_clip, loss.gp, or discriminator.spectral"
        )
    if loss.weight_clip and loss.name != "wgan":
        yield f"loss.weight_clip: bounds the slope for wgan; the {loss.name} loss needs no bound"
    if loss.weight_clip and (spectral or loss.gp or loss.dragan):
        yield "loss.weight_clip: a penalty or spectral norm bounds the slope already; choose one"
    if not (loss.adversarial or loss.feature_matching):
        yield "loss.adversarial: 0 without loss.feature_matching leaves the generator no loss"


def mean_targets(config: Config) -> tuple[float, float]:
    """Return the mean targets of real and of fake images, after flips."""
    real, fake = (
        sum(label) / 2 if isinstance(label, tuple) else label
        for label in (config.label_real, config.label_fake)
    )
    kept = 1 - config.label_flip
    return kept * real + (1 - kept) * fake, kept * fake + (1 - kept) * real


def _targets(config: Config) -> Iterator[str]:
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
            f"label_real, label_fake, label_flip: the mean label of real images ({real:g}) is not "
            f"above that of fake ones ({fake:g}), so the generator would learn to leave the real "
            "images; give real images the higher label, and a label_flip below 0.5"
        )
    if name == "lsgan" and (real + fake) / 2 > LSGAN_G_TARGET:
        yield (
            f"label_real, label_fake: the generator of the lsgan loss draws answers to "
            f"{LSGAN_G_TARGET:g}, which is nearer to the mean label of fake images ({fake:g}) "
            f"than to that of real ones ({real:g}); take labels whose middle is at most 1"
        )
    outside = [mean for mean in (real, fake) if not 0 <= mean <= 1]
    if name in CROSS_ENTROPY and outside:
        yield (
            f"label_real, label_fake: the {name} loss has no minimum at a mean label of "
            f"{outside[0]:g}, the answers would grow for ever; take labels with a mean of 0 to 1"
        )


def _penalties(config: Config) -> Iterator[str]:
    loss, discriminator = config.loss, config.discriminator
    if loss.gp and loss.dragan:
        yield "loss.dragan: loss.gp holds the same norm at 1 at other places; choose one"
    mixes = isinstance(discriminator, DcganDiscriminator) and discriminator.norm == "batch"
    if loss.gp and mixes:
        yield (
            "loss.gp: bounds the slope at each sample, but batch norm makes one answer depend "
            'on all samples; set discriminator.norm to "none" or "instance"'
        )
    if loss.gp and isinstance(discriminator, FastganDiscriminator | ProjectedDiscriminator):
        yield (
            f"loss.gp: bounds the slope at each sample, but the batch norm of the "
            f"{discriminator.name} discriminator makes one answer depend on all samples; "
            "choose another discriminator"
        )
    if config.unroll.steps and (_penalised(config) or loss.weight_clip):
        yield (
            "unroll.steps: the unrolled steps follow the plain loss; a gradient penalty or "
            "clipped weights would make the real steps others"
        )
    if config.unroll.steps and config.d_optimizer.name != "sgd" and not config.unroll.lr:
        yield "unroll.lr: the unrolled steps are plain descent; say how large they are"


def _updates(config: Config) -> Iterator[str]:
    """Check options that are impossible with simultaneous updates, where both networks learn
    from one pass."""
    if config.updates == "alternating":
        return
    discriminator, reason = config.discriminator, ""
    if config.unroll.steps:
        reason = "unroll.steps lets the generator see later discriminators"
    elif config.replay.size:
        reason = "replay.size shows the discriminator other fakes than the generator's"
    elif config.compile:
        reason = "compile leaves no pass through a network for two losses"
    elif isinstance(discriminator, ProjectedDiscriminator) and discriminator.norm == "joint":
        reason = 'discriminator.norm "joint" works in another way in each network\'s step'
    if reason:
        yield f"updates: simultaneous ones learn from one pass, but {reason}"


def _labels(config: Config) -> Iterator[str]:
    generator, discriminator = config.generator, config.discriminator
    looks = discriminator.condition != "none" or discriminator.classifier
    if generator.condition != "none" and not looks:
        yield (
            "generator.condition: the discriminator looks at no label, so the generator would "
            "learn to ignore it; set discriminator.condition or discriminator.classifier"
        )
    if looks and generator.condition == "none":
        yield (
            "discriminator.condition, discriminator.classifier: the generator knows no label to "
            "be judged by; set generator.condition"
        )
    if discriminator.classifier and not config.loss.classifier:
        yield "loss.classifier: 0 leaves discriminator.classifier untrained"
    if code_count(generator) and not config.loss.codes:
        yield "loss.codes: 0 leaves the codes of the generator without meaning"
    if code_count(generator) and config.replay.size:
        yield "replay.size: the codes of past fakes are not known; leave the generator's codes out"


def _semi_supervised(config: Config) -> Iterator[str]:
    discriminator, loss = config.discriminator, config.loss
    if not is_semi_supervised(discriminator):
        if config.data.labelled:
            yield "data.labelled: only discriminator.semi_supervised learns from some labels"
        return
    if loss.name not in ("minimax", "non-saturating"):
        yield (
            f"discriminator.semi_supervised: the {loss.name} loss takes no probabilities, and "
            '"fake" is one of K + 1; take minimax or non-saturating'
        )
    if (
        discriminator.classifier
        or discriminator.condition != "none"
        or code_count(config.generator)
    ):
        yield (
            "discriminator.semi_supervised: labels are to be found, not given; leave conditions, "
            "discriminator.classifier and codes out"
        )
    if not loss.classifier:
        yield "loss.classifier: 0 leaves the labels untaught"


def _packing(config: Config) -> Iterator[str]:
    discriminator = config.discriminator
    if discriminator.packing == 1:
        return
    looks = (
        discriminator.condition != "none"
        or discriminator.classifier
        or is_semi_supervised(discriminator)
    )
    if looks or code_count(config.generator):
        yield "discriminator.packing: images of several labels or codes have none together"
    for name in ("batch", "micro_batch"):
        if getattr(config, name) % discriminator.packing:
            yield f"{name}: not a multiple of discriminator.packing = {discriminator.packing}"


def _style(config: Config) -> Iterator[str]:
    """Check options of style generators, and penalties with steps of their own."""
    loss, styled = config.loss, isinstance(config.generator, StyleGan2Generator)
    if loss.path_length and not styled:
        yield 'loss.path_length: the paths are those of w; set generator.name to "stylegan2"'
    if loss.own_step and not (loss.r1 or loss.dragan):
        yield "loss.own_step: there is no penalty on real images (loss.r1, loss.dragan)"
    if loss.own_step and (loss.gp or loss.r2):
        yield "loss.own_step: loss.gp and loss.r2 need fakes, which that step does not draw"
    if loss.own_step and config.unroll.steps:
        yield "loss.own_step: unrolled steps follow the plain loss alone"
    mixes = isinstance(config.generator, StyleGan2Generator) and config.generator.style_mixing_prob
    if mixes and config.latent == "uniform":
        yield 'latent: style mixing draws its second latents from a Gaussian; not "uniform"'


def _engine(config: Config) -> Iterator[str]:
    """Precision, compilation and processes."""
    if config.precision == "fp16" and config.unroll.steps:
        yield (
            "precision: the unrolled steps' gradients are not scaled and would vanish in fp16; "
            'take "bf16" or "fp32"'
        )
    if not config.sync_batch_norm:
        return
    networks = (config.generator, config.discriminator)
    if all(getattr(network, "norm", "none") not in ("batch", "joint") for network in networks):
        yield "sync_batch_norm: neither network has batch norm"
    if config.compile:
        yield "compile: compiled networks cannot wait for each other; not with sync_batch_norm"
    if config.micro_batch:
        yield (
            "micro_batch: batch norm sees a piece at a time, not the batch; with sync_batch_norm "
            "take more processes instead"
        )


def _kinds(config: Config) -> Iterator[str]:
    """Check options that some kinds of networks do not support."""
    generator, discriminator = config.generator, config.discriminator
    for key, table in (("generator", generator), ("discriminator", discriminator)):
        if isinstance(table, R3ganGenerator | R3ganDiscriminator) and table.spectral:
            yield (
                f"{key}.spectral: the last convolution of each R3GAN block begins at zero and has "
                "no largest singular value to be divided by"
            )
    if isinstance(generator, R3ganGenerator) and generator.condition == "norm":
        yield 'generator.condition: R3GAN has no norms; "embedding" is its way'
    if isinstance(discriminator, ProjectedDiscriminator) and code_count(generator):
        yield "generator.categorical, generator.continuous: a projected discriminator guesses none"
    if isinstance(discriminator, ProjectedDiscriminator) and discriminator.norm == "joint":
        if _penalised(config):
            yield (
                'discriminator.norm: with "joint", real and fake images are judged together, and '
                f"the penalty {_penalised(config)[0]} judges some alone"
            )
        if config.compile:
            yield (
                'compile: not with discriminator.norm "joint", which works in another way in each '
                "network's step"
            )
    decodes = (
        isinstance(discriminator, FastganDiscriminator) and discriminator.reconstruction != "none"
    )
    if decodes and not config.loss.reconstruction:
        yield (
            "loss.reconstruction: 0 leaves the decoders untrained; set "
            'discriminator.reconstruction to "none"'
        )
    if decodes and config.unroll.steps:
        yield "unroll.steps: the unrolled steps follow the plain loss, without the decoders'"
    if config.burn_in.beta2 and {config.g_optimizer.name, config.d_optimizer.name} != {"adam"}:
        yield "burn_in.beta2: only Adam has a second moment to change"


def _unused_options(config: Config) -> Iterator[str]:
    """Check for options without effect."""
    if config.generator.dropout_at_test and not config.generator.dropout:
        yield "generator.dropout_at_test: there is no generator.dropout"
    if config.loss.interval > 1 and not _penalised(config):
        yield "loss.interval: there is no penalty to be applied at intervals"
    options = config.burn_in
    if options.kimg and options == BurnInOptions(options.kimg):
        yield "burn_in.kimg: nothing is said to change in it"
    if not options.kimg and options != BurnInOptions():
        yield "burn_in: without burn_in.kimg nothing of it happens"
    if options.penalty != 1 and not _penalised(config):
        yield "burn_in.penalty: there is no penalty"
    if config.freeze_d and not config.init_from:
        yield "freeze_d: without init_from the frozen layers would be random for ever"
    if config.augment.ada and config.augment.policy:
        yield "augment.policy: augment.ada has such transforms too; choose one"
    if config.augment.ada and not config.augment.p:
        yield "augment.p: 0 leaves augment.ada without effect"
    if config.augment.p != "adaptive" and not config.augment.ada:
        yield "augment.p: there is no augment.ada whose probability it could be"
    if config.augment.noise_kimg and not config.augment.noise:
        yield "augment.noise_kimg: there is no augment.noise to decay"

"""Option conflicts: pure rules over a configuration, without torch."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.contract import UserError
from training.config import Config
from training.options.algorithm import BurnInOptions
from training.options.architectures import (
    DcganDiscriminator,
    R3ganDiscriminator,
    R3ganGenerator,
)
from training.options.efficient import (
    FastganDiscriminator,
    FastganGenerator,
    ProjectedDiscriminator,
)
from training.options.loss_rules import (
    loss_kind_conflicts,
    penalties_of,
    projected_conflicts,
    small_pass_conflicts,
)
from training.options.losses import LOSS_PROPERTIES, LOSSES_WITH_TARGETS, names_with
from training.options.method_rules import method_conflicts
from training.options.styled import StyledGeneratorOptions
from training.options.target_rules import (
    label_conflicts,
    packing_conflicts,
    semi_supervised_conflicts,
    target_conflicts,
)


def check_compatible(config: Config) -> None:
    """Raise if parts of a configuration cannot work together.

    Raises:
        UserError: one line with the keys and the reason.
    """
    for checks in (
        _losses,
        loss_kind_conflicts,
        small_pass_conflicts,
        target_conflicts,
        _penalties,
        _updates,
        _blocks,
        _engine,
        _graphs,
        label_conflicts,
        semi_supervised_conflicts,
        packing_conflicts,
        _unused_options,
        _style,
        _kinds,
        method_conflicts,
    ):
        for complaint in checks(config):
            raise UserError(complaint)


def _losses(config: Config) -> Iterator[str]:
    loss, spectral = config.loss, config.discriminator.spectral
    smooth = (config.label_real, config.label_fake, config.label_flip) != (1.0, 0.0, 0.0)
    if smooth and loss.name not in LOSSES_WITH_TARGETS:
        yield (
            f"label_real, label_fake, label_flip: the {loss.name} loss has no targets; use "
            f"{', '.join(sorted(LOSSES_WITH_TARGETS))}"
        )
    kind = LOSS_PROPERTIES[loss.name]
    if kind.unbounded and not (loss.weight_clip or spectral or penalties_of(config)):
        yield (
            f"loss.name: {loss.name} needs a discriminator with bounded gradients; set "
            "loss.weight_clip, loss.gp or discriminator.spectral"
        )
    if loss.weight_clip and not (kind.unbounded or kind.vector):
        yield (
            f"loss.weight_clip: only for wgan and for losses on vectors ({names_with('vector')}), "
            f"not for {loss.name}"
        )
    if loss.weight_clip and (spectral or loss.gp or loss.dragan):
        yield "loss.weight_clip: a penalty or spectral norm already bounds gradients; choose one"
    if not (loss.adversarial or loss.feature_matching):
        yield "loss.adversarial: with 0 the generator has no loss; set loss.feature_matching"


def _penalties(config: Config) -> Iterator[str]:
    loss, discriminator = config.loss, config.discriminator
    if loss.gp and loss.dragan:
        yield "loss.dragan: loss.gp also penalises the gradient norm; choose one"
    mixes = isinstance(discriminator, DcganDiscriminator) and discriminator.norm == "batch"
    if loss.gp and mixes:
        yield (
            "loss.gp: penalises the gradient of each sample, but with batch norm each logit "
            'depends on all samples; set discriminator.norm to "none" or "instance"'
        )
    normed = isinstance(discriminator, FastganDiscriminator | ProjectedDiscriminator)
    if loss.gp and normed and not getattr(discriminator, "pixel_width", 0):
        yield (
            f"loss.gp: penalises the gradient of each sample, but with the batch norm of the "
            f"{discriminator.name} discriminator each logit depends on all samples; "
            "choose another discriminator"
        )
    if config.unroll.steps and (penalties_of(config) or loss.weight_clip):
        yield (
            "unroll.steps: unrolled steps do not support gradient penalties and weight clipping; "
            "switch them off"
        )
    if config.unroll.steps and config.d_optimizer.name != "sgd" and not config.unroll.lr:
        yield "unroll.lr: required unless d_optimizer.name is sgd: the learning rate of the steps"


def _updates(config: Config) -> Iterator[str]:
    """Check options that are impossible with simultaneous updates, where both networks learn
    from one pass."""
    if config.updates != "simultaneous":
        return
    discriminator, reason = config.discriminator, ""
    if config.unroll.steps:
        reason = "unroll.steps needs updated discriminators for the generator"
    elif config.replay.size:
        reason = "replay.size gives the discriminator other fakes than the generator's"
    elif config.fresh_latents:
        reason = "fresh_latents needs a pass of the generator's own"
    elif config.compile:
        reason = "compile does not support two losses in one pass"
    elif isinstance(discriminator, ProjectedDiscriminator) and discriminator.norm == "joint":
        reason = 'discriminator.norm "joint" works differently in the step of each network'
    if reason:
        yield f'updates: "simultaneous" trains both networks from one pass, but {reason}'


def _blocks(config: Config) -> Iterator[str]:
    """Check what block-wise alternation replaces."""
    blocks = config.blocks
    if not blocks.cycle:
        return
    if not (blocks.d_steps and blocks.g_steps):
        yield "blocks: set both blocks.d_steps and blocks.g_steps, or neither"
    if config.updates != "alternating":
        yield f'blocks.d_steps: updates "{config.updates}" trains both networks in each step'
    if config.n_critic != 1:
        yield "blocks.d_steps: n_critic is the number of updates within a step; use one of both"


def _style(config: Config) -> Iterator[str]:
    """Check options of style generators, and penalties with steps of their own."""
    loss, styled = config.loss, isinstance(config.generator, StyledGeneratorOptions)
    if loss.path_length and not styled:
        yield 'loss.path_length: needs a style generator; set generator.name to "stylegan2"'
    if loss.own_step and not (loss.r1 or loss.dragan):
        yield "loss.own_step: needs a penalty on real images; set loss.r1 or loss.dragan"
    if loss.own_step and (loss.gp or loss.r2):
        yield "loss.own_step: not supported with loss.gp and loss.r2, which need fake images"
    if loss.own_step and config.unroll.steps:
        yield "loss.own_step: not supported with unroll.steps"
    mixes = (
        isinstance(config.generator, StyledGeneratorOptions) and config.generator.style_mixing_prob
    )
    if mixes and config.latent == "uniform":
        yield 'latent: "uniform" is not supported with style mixing, which uses Gaussian latents'


def _engine(config: Config) -> Iterator[str]:
    """Precision, compilation and processes."""
    if config.precision == "fp16" and config.unroll.steps:
        yield (
            'precision: gradients of unrolled steps would underflow in fp16; use "bf16" or "fp32"'
        )
    if not config.sync_batch_norm:
        return
    method = config.method
    others = (getattr(method, name, None) for name in ("encoder", "classifier"))
    if not any(map(_has_batch_norm, (config.generator, config.discriminator, *others))):
        yield "sync_batch_norm: no network has batch norm; set it to false"
    if config.compile:
        yield "compile: not supported with sync_batch_norm"
    if config.micro_batch:
        yield (
            "micro_batch: with sync_batch_norm the statistics would still be those of a "
            "micro-batch; use more processes instead"
        )


def _has_batch_norm(options: object) -> bool:
    """Return True if the network of these options has batch norm."""
    always = isinstance(options, FastganGenerator | FastganDiscriminator)
    return always or getattr(options, "norm", "none") in ("batch", "joint")


def _graphs(config: Config) -> Iterator[str]:
    """Check what CUDA graphs cannot repeat: decisions and random numbers of the CPU."""
    if not config.cuda_graphs:
        return
    rates = config.g_optimizer, config.d_optimizer
    if config.device not in ("auto", "cuda"):
        yield f"cuda_graphs: device {config.device} has no graphs; only cuda has"
    if config.precision == "fp16":
        yield 'cuda_graphs: the CPU decides which steps fp16 skips; use "bf16" or "fp32"'
    if config.augment.ada:
        yield "cuda_graphs: the random numbers of augment.ada come from the CPU"
    generator, discriminator = config.generator, config.discriminator
    if isinstance(generator, StyledGeneratorOptions) and generator.style_mixing_prob:
        yield "cuda_graphs: the CPU chooses mixed styles; set generator.style_mixing_prob to 0"
    if isinstance(discriminator, FastganDiscriminator) and discriminator.reconstruction != "none":
        yield (
            "cuda_graphs: the CPU chooses the quarter to reconstruct; set "
            'discriminator.reconstruction to "none"'
        )
    if any(options.name != "adam" for options in rates):
        yield "cuda_graphs: the only optimizer that can be captured is adam"
    if any(options.decay_kimg for options in rates):
        yield "cuda_graphs: has no effect with decay_kimg, which changes the step each time"
    for key, is_on in (
        ("compile", config.compile),
        ("replay.size", config.replay.size),
        ("unroll.steps", config.unroll.steps),
        ("sync_batch_norm", config.sync_batch_norm),
    ):
        if is_on:
            yield f"cuda_graphs: not supported with {key}"


def _kinds(config: Config) -> Iterator[str]:
    """Check options that some kinds of networks do not support."""
    generator, discriminator = config.generator, config.discriminator
    for key, options in (("generator", generator), ("discriminator", discriminator)):
        if isinstance(options, R3ganGenerator | R3ganDiscriminator) and options.spectral:
            yield (
                f"{key}.spectral: not supported by R3GAN, whose blocks start with zero weights "
                "without a largest singular value"
            )
    if isinstance(generator, R3ganGenerator) and generator.condition == "norm":
        yield 'generator.condition: R3GAN has no norm layers; use "embedding"'
    if isinstance(discriminator, ProjectedDiscriminator):
        yield from projected_conflicts(config, discriminator)
    decodes = (
        isinstance(discriminator, FastganDiscriminator) and discriminator.reconstruction != "none"
    )
    if decodes and not config.loss.reconstruction:
        yield (
            "loss.reconstruction: with 0, the decoders would not be trained; set "
            'discriminator.reconstruction to "none"'
        )
    if decodes and config.unroll.steps:
        yield "unroll.steps: not supported with discriminator.reconstruction"
    if config.burn_in.beta2 and {config.g_optimizer.name, config.d_optimizer.name} != {"adam"}:
        yield "burn_in.beta2: has an effect only on Adam"


def _unused_options(config: Config) -> Iterator[str]:
    """Check for options without effect."""
    if config.generator.dropout_at_test and not config.generator.dropout:
        yield "generator.dropout_at_test: has no effect without generator.dropout"
    networks = config.generator, config.discriminator
    if config.fir != "conv" and all(getattr(one, "resample", "") != "filter" for one in networks):
        yield 'fir: has an effect only on networks with resample "filter" (stylegan2, r3gan)'
    if config.loss.interval > 1 and not penalties_of(config):
        yield "loss.interval: has no effect without a gradient penalty"
    options = config.burn_in
    if options.kimg and options == BurnInOptions(options.kimg):
        yield "burn_in.kimg: has no effect unless another key of burn_in is set"
    if not options.kimg and options != BurnInOptions():
        yield "burn_in: has no effect without burn_in.kimg"
    if options.penalty != 1 and not penalties_of(config):
        yield "burn_in.penalty: has no effect without a gradient penalty"
    for key, rate in (("g_optimizer", config.g_optimizer), ("d_optimizer", config.d_optimizer)):
        if rate.decay_from_kimg and rate.decay_from_kimg >= rate.decay_kimg:
            yield f"{key}.decay_from_kimg: must be below {key}.decay_kimg, where the rate becomes 0"
    if config.freeze_d and config.unroll.steps:
        yield "freeze_d: not supported with unroll.steps, which trains all layers; set it to 0"
    if config.freeze_d and not config.init_from:
        yield "freeze_d: without init_from, the frozen layers would stay random"
    if config.augment.ada and config.augment.policy:
        yield "augment.policy: cannot be combined with augment.ada; choose one"
    if config.augment.ada and not config.augment.p:
        yield "augment.p: with 0, augment.ada has no effect"
    if config.augment.p != "adaptive" and not config.augment.ada:
        yield "augment.p: has no effect without augment.ada"
    if config.augment.noise_kimg and not config.augment.noise:
        yield "augment.noise_kimg: has no effect without augment.noise"
    if config.augment.blur_kimg and not config.augment.blur:
        yield "augment.blur_kimg: has no effect without augment.blur"

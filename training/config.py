"""The configuration of a run as typed options: all options of the trainer, their defaults and
ranges.

A configuration is built in layers: these defaults < a preset < the command line
(`training.options.resolve`). A section whose `name` selects a kind (generator, discriminator) is a
union: each kind has its own keys. Nothing here imports torch, so errors are reported before it is
loaded.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from pipeline.contract import LARGEST_SIDE, STRICT
from training.options.architectures import (
    AnyDiscriminatorOptions,
    AnyGeneratorOptions,
    DcganDiscriminator,
    DcganGenerator,
)
from training.options.base import Count, Fraction, NonNegative, Number, Positive  # fmt: skip

LEAST = 1e-6
"""Interval of writing, in thousands of images: less than one image is an error."""
Interval = Annotated[float, Field(ge=LEAST, le=1e100)]


def _none_or_interval(kimg: float) -> float:
    if 0 < kimg < LEAST:
        raise ValueError(f"0, or at least {LEAST:g}")
    return kimg


_Label = Annotated[float, Field(ge=-1, le=2)]
Label = _Label | tuple[_Label, _Label]

LossName = Literal[
    "minimax",
    "non-saturating",
    "lsgan",
    "hinge",
    "wgan",
    "rsgan",
    "rasgan",
    "ralsgan",
    "rahinge",
    "random-hinge",
]

AdaName = Literal[
    "blit", "geom", "color", "filter", "noise", "cutout",
    "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
    "xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac",
    "brightness", "contrast", "lumaflip", "hue", "saturation",
]  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class PresetInfo:
    """Where a preset comes from and what result to expect; has no effect."""

    source: str = ""
    summary: str = ""
    expect: str = ""


@dataclass(frozen=True, config=STRICT)
class LossOptions:
    """The adversarial loss, the gradient penalties, and auxiliary losses.

    `gp` weights (‖∇D‖ − 1)² between real and fake (Gulrajani 2017), `dragan` the same around real
    images (Kodali 2017), `r1` and `r2` γ/2·‖∇D‖² on real and on fake images (Mescheder 2018).
    `interval` applies them every so many steps with a correspondingly larger weight (Karras 2020).
    `own_step` gives those on real images their own optimiser step, as in Karras 2020, and corrects
    the learning rate and decays; otherwise they are added to the loss.

    `path_length` weights the generator's path length penalty (Karras 2020a; 0: none), always in its
    own step, every `path_interval` steps on 1/`path_batch_shrink` of the batch; `path_decay`
    updates its mean. `weight_clip` limits every weight of the discriminator (Arjovsky 2017; 0: no
    limit).

    The generator's loss is `adversarial` times its adversarial loss plus `feature_matching` times
    the distance of mean features (Salimans 2016). `classifier` weights predictions of labels
    (AC-GAN, semi-supervised head), `codes` those of InfoGAN's codes, `reconstruction` the
    discriminator's reconstruction of real images (Liu 2021).
    """

    name: LossName = "non-saturating"
    gp: NonNegative = 0.0
    dragan: NonNegative = 0.0
    r1: NonNegative = 0.0
    r2: NonNegative = 0.0
    interval: Count = 1
    own_step: bool = False
    path_length: NonNegative = 0.0
    path_interval: Count = 4
    path_decay: Fraction = 0.01
    path_batch_shrink: Count = 2
    weight_clip: NonNegative = 0.0
    adversarial: NonNegative = 1.0
    feature_matching: NonNegative = 0.0
    classifier: NonNegative = 1.0
    codes: NonNegative = 1.0
    reconstruction: NonNegative = 1.0


@dataclass(frozen=True, config=STRICT)
class OptimizerOptions:
    """Adam, SGD (momentum `beta1`) or RMSprop (momentum `beta1`, smoothing `beta2`).

    `clip` limits the gradient norm (0: no limit). The learning rate decays linearly to 0 at
    `decay_kimg` thousand images (0: constant).
    """

    name: Literal["adam", "sgd", "rmsprop"] = "adam"
    lr: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: NonNegative = 0.0
    decay_kimg: NonNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class BurnInOptions:
    """Burn-in: over `kimg` thousand images (0: no burn-in), values change from the configured ones
    to these along half a cosine, and stay there (Huang et al. 2024).

    Learning rates become `lr` times theirs, the weights of penalties `penalty` times theirs, the
    optimisers' second moment `beta2` (0: unchanged); with `ema` the half-life of the average grows
    from 0.
    """

    kimg: NonNegative = 0.0
    lr: Positive = 1.0
    penalty: NonNegative = 1.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema: bool = False


@dataclass(frozen=True, config=STRICT)
class ReplayOptions:
    """Experience replay: `size` fakes are kept, a `share` of each batch is swapped with them
    (Shrivastava 2017; size 0: none)."""

    size: Number = 0
    share: Fraction = 0.5


@dataclass(frozen=True, config=STRICT)
class UnrollOptions:
    """The generator learns from the discriminator after `steps` more steps of gradient descent
    with learning rate `lr` (Metz 2017; 0: that of the discriminator's SGD)."""

    steps: Annotated[int, Field(ge=0, le=1000)] = 0
    lr: NonNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class EmaOptions:
    """The moving average of the generator's weights, which generates the samples.

    `half_life_kimg` is in thousands of images; at the start the half-life is at most `ramp_up`
    times the number of images seen (Karras 2020b; 0: no ramp). With `init_from` there is no ramp
    and no burn-in of the average: it starts with the given weights.
    """

    half_life_kimg: Positive = 10.0
    ramp_up: NonNegative = 0.05


@dataclass(frozen=True, config=STRICT)
class AugmentOptions:
    """Augmentation of real and fake images before the discriminator sees them.

    `policy` is that of DiffAugment (Zhao et al. 2020): any of color, translation, cutout. `ada` are
    the transforms of adaptive augmentation (Karras et al. 2020a): a policy of the paper (`bgc`:
    blits, geometry, color), or a list of policies and transforms. Each is applied to an image with
    probability `p`: a number, or `adaptive`: p starts at 0 and is adjusted every `ada_interval`
    batches, so that the mean sign of the discriminator's logits on real images approaches
    `ada_target`, at a speed of 0 to 1 in `ada_kimg` thousand images.

    `noise` is the standard deviation of Gaussian noise on the images (whose range is 2), which
    decays linearly to 0 at `noise_kimg` thousand images (0: constant; Sønderby 2017).
    """

    policy: tuple[Literal["color", "translation", "cutout"], ...] = ()
    ada: AdaName | tuple[AdaName, ...] = ()
    p: Fraction | Literal["adaptive"] = "adaptive"
    ada_target: Annotated[float, Field(ge=-1, le=1)] = 0.6
    ada_kimg: Positive = 500.0
    ada_interval: Count = 4
    noise: NonNegative = 0.0
    noise_kimg: NonNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class DataOptions:
    """How samples are read.

    `window`: number of shards that are mixed at a time; `mirror`: flip half of the images.
    `memory_gb` limits the decoded images kept in memory; the others are decoded again. `labelled`:
    only this many samples, drawn by the seed, show their label to a semi-supervised discriminator
    (0: all that have one). `cache_gb` limits the disk space of shards fetched from a URL, in the
    folder `cache`.
    """

    window: Count = 4
    mirror: bool = False
    labelled: Annotated[int, Field(ge=0, lt=2**31)] = 0
    memory_gb: NonNegative = 2.0
    cache_gb: Positive = 10.0
    cache: str = ""
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    skip_corrupt: bool = False


@dataclass(frozen=True, config=STRICT)
class RecordOptions:
    """Intervals of writing, in thousands of images, and what is kept.

    `keep` is the number of checkpoints; the run stops while `spare_mb` of the disk are still free.
    """

    log_kimg: Interval = 1.0
    sample_kimg: Interval = 10.0
    checkpoint_kimg: Interval = 20.0
    checkpoint_minutes: Positive = 10.0
    keep: Count = 3
    spare_mb: NonNegative = 32.0
    grid: Annotated[int, Field(ge=1, le=4096)] = 64


@dataclass(frozen=True, config=STRICT)
class EvaluateOptions:
    """Evaluations during training, every `kimg` thousand images (0: none).

    `samples` images of the averaged generator are compared with the first `real` images of the
    shards (0: all). The checkpoint with the lowest `metric` is kept beside the newest ones.
    """

    kimg: Annotated[NonNegative, AfterValidator(_none_or_interval)] = 100.0
    samples: Annotated[int, Field(ge=50, le=10_000_000)] = 500
    real: Annotated[int, Field(ge=0, lt=2**31)] = 2000
    metric: Literal["fd", "kid"] = "fd"


@dataclass(frozen=True, config=STRICT)
class Config:
    """The complete configuration of a run. `resolution` 0 means that of the shards; `max_hours` 0
    no limit. `threads` = 0 measures the best number of CPU threads, again when the machine becomes
    busy or idle; a given number never changes.

    `batch` is the global batch size; `micro_batch` limits the images that pass the networks at once
    (gradient accumulation; 0: no limit). `price_per_hour` of the machine, in any currency, is only
    reported. A run that becomes NaN is rolled back at most `max_restarts` times.

    `init_from` is a run, a checkpoint's .pt file or a .pkl of StyleGAN2-ADA, from which matching
    weights are loaded; the others are reported. `freeze_d` freezes that many of the discriminator's
    layers next to the image (Mo 2020).

    `precision` `fp16` scales the losses, and skips steps whose gradients overflow. `compile`
    compiles both networks with PyTorch, which takes minutes. `deterministic` allows only operations
    that give the same bits each time (those of the CPU do anyway). `sync_batch_norm` uses the batch
    statistics of all processes.

    `updates`: `alternating` trains the discriminator, then the generator; `simultaneous` trains
    both from one pass, which costs less (Mescheder 2017, Shen 2021).

    `label_real` and `label_fake` are the discriminator's targets: one number (0.9 is one-sided
    smoothing), or two between which each sample's target is drawn; with probability `label_flip` a
    sample gets one of the other kind.

    `labels` states what happens to conditions on labels if the shards have none: an error, or
    (`if-any`) the networks are built without them.
    """

    preset: str = ""
    about: PresetInfo = field(default_factory=PresetInfo)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch: Count = 128
    total_kimg: Positive = 1000.0
    resolution: Annotated[int, Field(ge=0, le=LARGEST_SIDE)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    max_hours: NonNegative = 0.0
    price_per_hour: NonNegative = 0.0
    max_restarts: Number = 3
    micro_batch: Number = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    deterministic: bool = False
    sync_batch_norm: bool = False
    channels_last: bool = True
    latent: Literal["gaussian", "sphere", "uniform"] = "gaussian"
    n_critic: Count = 1
    updates: Literal["alternating", "simultaneous"] = "alternating"
    label_real: Label = 1.0
    label_fake: Label = 0.0
    label_flip: Fraction = 0.0
    labels: Literal["required", "if-any"] = "required"
    init_from: str = ""
    freeze_d: Number = 0
    generator: AnyGeneratorOptions = field(default_factory=DcganGenerator)
    discriminator: AnyDiscriminatorOptions = field(default_factory=DcganDiscriminator)
    loss: LossOptions = field(default_factory=LossOptions)
    g_optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    d_optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    burn_in: BurnInOptions = field(default_factory=BurnInOptions)
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    unroll: UnrollOptions = field(default_factory=UnrollOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    data: DataOptions = field(default_factory=DataOptions)
    record: RecordOptions = field(default_factory=RecordOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "about", "total_kimg", "device", "max_hours", "price_per_hour", "max_restarts",
        "data.memory_gb", "data.cache_gb", "data.cache", "data.timeout", "record", "evaluate",
    }
)  # fmt: skip
"""Sections and keys that may change when a run is resumed: they do not affect its result."""

"""The configuration of a run as typed options: all options of the trainer, their defaults and
ranges.

A configuration is built in layers: these defaults < a preset < the command line
(`training.options.resolve`). A section whose `name` selects a kind (generator, discriminator) is a
union: each kind has its own keys. Nothing here imports torch, so errors are reported before it is
loaded.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from pipeline.contract import LARGEST_SIDE, STRICT
from training.options.algorithm import (
    AugmentOptions,
    BlockOptions,
    BurnInOptions,
    EmaOptions,
    LossOptions,
    OptimizerOptions,
    ReplayOptions,
    StopOptions,
    UnrollOptions,
)
from training.options.architectures import (
    AnyDiscriminatorOptions,
    AnyGeneratorOptions,
    DcganDiscriminator,
    DcganGenerator,
)
from training.options.base import Count, Fraction, NonNegative, Number, Positive
from training.options.methods import AnyMethodOptions, GanMethod

LEAST = 1e-6
"""Interval of writing, in thousands of images: less than one image is an error."""
Interval = Annotated[float, Field(ge=LEAST, le=1e100)]


def _none_or_interval(kimg: float) -> float:
    if 0 < kimg < LEAST:
        raise ValueError(f"0, or at least {LEAST:g}")
    return kimg


def _auto_or_size(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (is_number and 0 <= value <= 1e100):  # type: ignore[operator]
        raise ValueError("neither auto nor a number of at least 0")
    return value


AutoOrSize = Annotated[NonNegative | Literal["auto"], BeforeValidator(_auto_or_size)]
_Label = Annotated[float, Field(ge=-1, le=2)]
Label = _Label | tuple[_Label, _Label]


@dataclass(frozen=True, config=STRICT)
class PresetInfo:
    """Where a preset comes from and what result to expect; has no effect.

    `source` is its paper or tutorial, `summary` what it is, `expect` the expected result.
    """

    source: str = ""
    summary: str = ""
    expect: str = ""


def _label_source(value: str) -> str:
    if not re.fullmatch(_LABEL_SOURCE, value):
        raise ValueError(
            "not none, the extension of a member (txt), json:KEY or clusters:N with N from 2 to 256"
        )
    return value


def crossed(before: int, after: int, every_kimg: float) -> bool:
    """Return True if a multiple of `every_kimg` thousand lies in (before, after]; 0 has none."""
    every = every_kimg * 1000
    return bool(every) and int(after / every) > int(before / every)


_ASKED = "clusters:"
_LABEL_SOURCE = rf"none|json:.+|{_ASKED}([2-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-6])|[a-z0-9._-]{{0,32}}"


def count_clusters(label: str) -> int:
    """Return the number of clusters that `data.label` asks for, 0 for labels from elsewhere."""
    return int(label.removeprefix(_ASKED)) if label.startswith(_ASKED) else 0


@dataclass(frozen=True, config=STRICT)
class DataOptions:
    """How samples are read.

    `window`: number of shards that are mixed at a time; `mirror`: flip half of the images.
    `memory_gb` limits the decoded images kept in main memory, where the processes of a machine
    share them; the others are decoded again. `device_gb`: if all decoded images take at most this
    much, they are kept on the training device, and batches are gathered there (`auto`: if they fit
    into the free memory of a GPU beside training; 0: never). `labelled`:
    only this many samples, drawn by the seed, show their label to a semi-supervised discriminator
    (0: all that have one). `cache_gb` limits the disk space of shards fetched from a URL, in the
    folder `cache`. A connection that is nearly idle for `timeout` seconds counts as lost. With
    `skip_corrupt`, training continues without a damaged shard.

    `fit` resizes images to `resolution` when they are read: the largest central region (`crop`),
    the whole image on a background of its border's colour (`pad`) or the whole image (`stretch`).
    Empty: all images have the same size. `channels` is 1 (gray), 3 (colour) or 4 (colour and
    transparency; opaque images get an opaque alpha); 0 is what the index says or, without one, 1 if
    the first images are gray and 3 otherwise, with transparent pixels over white. `label` is where
    labels come from: `.cls` (empty), `none`, the extension of a text member, `json:KEY`, or
    `clusters:N`, the number of the nearest of N clusters (2 to 256) of similar images (Liu 2020);
    `image` is the extension of the image member (empty: jpg, jpeg, png, webp, …).

    `shards_b` are the shards of the second set for methods that translate between two sets (the
    option `--shards-b`); it is read like the first one, and both share the limits of memory and
    disk.
    """

    window: Count = 4
    mirror: bool = False
    labelled: Annotated[int, Field(ge=0, lt=2**31)] = 0
    memory_gb: NonNegative = 2.0
    device_gb: AutoOrSize = "auto"
    cache_gb: Positive = 10.0
    cache: str = ""
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    skip_corrupt: bool = False
    fit: Literal["", "crop", "pad", "stretch"] = ""
    channels: Literal[0, 1, 3, 4] = 0
    label: Annotated[str, AfterValidator(_label_source)] = ""
    image: Annotated[str, Field(pattern=r"^[a-z0-9._-]{0,32}$")] = ""
    shards_b: str = ""


@dataclass(frozen=True, config=STRICT)
class RecordOptions:
    """Intervals of writing, in thousands of images, and what is kept.

    A row of `metrics.jsonl` is written every `log_kimg`, a grid of `grid` samples every
    `sample_kimg`, and a checkpoint every `checkpoint_kimg` and every `checkpoint_minutes`.
    `keep` is the number of checkpoints; the run stops while `spare_mb` of the disk are still free.

    Grids, checkpoints, reports and evaluations take about `time_share` of the time at most, each a
    quarter of it: on a fast GPU some are left out, but not the first one that is due five minutes
    after the last, and none at the end. With 0 they follow the images seen alone.
    """

    log_kimg: Interval = 1.0
    sample_kimg: Interval = 10.0
    checkpoint_kimg: Interval = 20.0
    checkpoint_minutes: Positive = 10.0
    time_share: Fraction = 0.02
    keep: Count = 3
    spare_mb: NonNegative = 32.0
    grid: Annotated[int, Field(ge=1, le=4096)] = 64


@dataclass(frozen=True, config=STRICT)
class EvaluateOptions:
    """Evaluations during training, every `kimg` thousand images (0: none).

    `samples` images of the averaged generator are compared with the first `real` images of the
    shards (0: all), by the `features` of a network: `efficientnet_lite0` or `torchvision:MODEL`,
    which sees images with transparency over `background`, "#rrggbb". The checkpoint with the lowest
    `metric` is kept beside the newest ones.
    """

    kimg: Annotated[NonNegative, AfterValidator(_none_or_interval)] = 100.0
    samples: Annotated[int, Field(ge=50, le=10_000_000)] = 500
    real: Annotated[int, Field(ge=0, lt=2**31)] = 2000
    metric: Literal["fd", "kid"] = "fd"
    features: Annotated[str, Field(pattern=r"^(efficientnet_lite0|torchvision:\w+)$")] = (
        "efficientnet_lite0"
    )
    background: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")] = "#ffffff"


@dataclass(frozen=True, config=STRICT)
class Config:
    """The complete configuration of a run. `preset` is the one it started from. `seed` determines
    all random numbers. The run ends after `total_kimg` thousand images. `device` `auto` is CUDA,
    MPS or the CPU, the first that exists. `resolution` 0 means that of the shards; `max_hours` 0
    means no limit. `threads` = 0 measures the best number of CPU threads, again when the machine
    becomes busy or idle; a given number never changes.

    `batch` is the global batch size; `micro_batch` limits the images that pass the networks at once
    (gradient accumulation; 0: no limit). `price_per_hour` of the machine, in any currency, is only
    reported. A run that becomes NaN is rolled back at most `max_restarts` times.

    `init_from` is a run, a checkpoint's .pt file or a .pkl of StyleGAN2-ADA, from which matching
    weights are loaded; the others are reported. A .pkl also determines the networks' sizes and
    conditions, the resolution and the channels. `freeze_d` freezes that many of the discriminator's
    layers next to the image (Mo 2020).

    `precision` `fp16` scales the losses, and skips steps whose gradients overflow. `compile`
    compiles both networks with PyTorch, which takes minutes. `fir` is how StyleGAN2 and R3GAN
    compute their low-pass filters: grouped convolutions (`conv`) or two passes, one for each axis,
    compiled on CUDA (`separable`). `cuda_graphs` launches all kernels of a step at once, on one
    CUDA device, with the same results; no GPU has run it. `deterministic` allows only operations
    that give the same bits each time (those of the CPU do anyway). `sync_batch_norm` uses the batch
    statistics of all processes. `channels_last` stores images with the channels last, which is
    faster for most convolutions. `latent` is the distribution of the latents: normal (`gaussian`),
    on a sphere (`sphere`) or uniform in [-1, 1] (`uniform`). `n_critic` is the number of updates of
    the discriminator per update of the generator.

    `updates`: `alternating` trains the discriminator, then the generator; `generator-first` the
    other way round, with latents of its own for each (the order of StyleGAN2 and R3GAN);
    `simultaneous` trains both from one pass, which costs less (Mescheder 2017, Shen 2021).
    `fresh_latents` draws new latents for the generator's update, as WGAN does (and as blocks and
    `generator-first` do anyway); otherwise it learns from the images that the discriminator has
    just seen, which saves a pass of the generator.

    `label_real` and `label_fake` are the discriminator's targets: one number (0.9 is one-sided
    smoothing), or two between which each sample's target is drawn; with probability `label_flip` a
    sample gets one of the other kind.

    `labels` states what happens to conditions on labels if the shards have none: an error, or
    (`if-any`) the networks are built without them.

    `tracking` sends metrics, configuration and samples to Weights & Biases or MLflow too, whose
    package must be installed.
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
    fir: Literal["conv", "separable"] = "conv"
    cuda_graphs: bool = False
    deterministic: bool = False
    sync_batch_norm: bool = False
    channels_last: bool = True
    latent: Literal["gaussian", "sphere", "uniform"] = "gaussian"
    n_critic: Count = 1
    updates: Literal["alternating", "generator-first", "simultaneous"] = "alternating"
    fresh_latents: bool = False
    label_real: Label = 1.0
    label_fake: Label = 0.0
    label_flip: Fraction = 0.0
    labels: Literal["required", "if-any"] = "required"
    tracking: Literal["", "wandb", "mlflow"] = ""
    init_from: str = ""
    freeze_d: Number = 0
    generator: AnyGeneratorOptions = field(default_factory=DcganGenerator)
    discriminator: AnyDiscriminatorOptions = field(default_factory=DcganDiscriminator)
    method: AnyMethodOptions = field(default_factory=GanMethod)
    loss: LossOptions = field(default_factory=LossOptions)
    g_optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    d_optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    burn_in: BurnInOptions = field(default_factory=BurnInOptions)
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    unroll: UnrollOptions = field(default_factory=UnrollOptions)
    blocks: BlockOptions = field(default_factory=BlockOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    data: DataOptions = field(default_factory=DataOptions)
    record: RecordOptions = field(default_factory=RecordOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    stop: StopOptions = field(default_factory=StopOptions)


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "about", "total_kimg", "device", "cuda_graphs", "max_hours", "price_per_hour",
        "max_restarts", "tracking", "data.memory_gb", "data.device_gb", "data.cache_gb",
        "data.cache", "data.timeout", "data.shards_b", "record", "evaluate", "stop",
    }
)  # fmt: skip
"""Sections and keys that may change when a run is resumed: they do not affect its result."""

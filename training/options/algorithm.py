"""Options of the algorithm: losses, optimisers, schedules, techniques and augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import Count, Fraction, NonNegative, Number, Positive
from training.options.losses import LossName

AdaName = Literal[
    "blit", "geom", "color", "filter", "noise", "cutout",
    "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
    "xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac",
    "brightness", "contrast", "lumaflip", "hue", "saturation",
]  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class LossOptions:
    """The adversarial loss, the gradient penalties, and auxiliary losses.

    `name` is the adversarial loss. `gp` weights (‖∇D‖ − 1)² between real and fake (Gulrajani 2017),
    `dragan` the same around real images (Kodali 2017), `r1` and `r2` γ/2·‖∇D‖² on real and on fake
    images (Mescheder 2018). `interval` applies them every so many steps with a correspondingly
    larger weight (Karras 2020). `own_step` gives those on real images their own optimiser step, as
    in Karras 2020, and corrects the learning rate and decays; otherwise they are added to the loss.

    `path_length` weights the generator's path length penalty (Karras 2020a; 0: none), always in its
    own step, every `path_interval` steps on 1/`path_batch_shrink` of the batch; `path_decay`
    updates its mean. `weight_clip` limits every weight of the discriminator (Arjovsky 2017; 0: no
    limit).

    The generator's loss is `adversarial` times its adversarial loss plus `feature_matching` times
    the distance of mean features (Salimans 2016). `classifier` weights predictions of labels
    (AC-GAN, semi-supervised head), `codes` those of InfoGAN's codes, `reconstruction` the
    discriminator's reconstruction of real images (Liu 2021). `pulling_away` weights the mean square
    cosine between features of different generated images, which it keeps apart (Zhao 2017).
    `feature_spread` weights how much closer generated images of a label are to each other than real
    ones, in the features of a projected discriminator's frozen network (0: none).

    Only some losses have these: `margin` is that of ebgan; began keeps the error of generated
    images at `diversity` times that of real ones (γ), by a factor that follows at `balance_rate`
    (λ_k); magan adapts its margin every `margin_kimg` thousand images, the first of which train the
    autoencoder alone; `constraint_rate` is ρ of fisher.
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
    pulling_away: NonNegative = 0.0
    feature_spread: NonNegative = 0.0
    margin: Positive = 1.0
    diversity: Positive = 0.5
    balance_rate: Positive = 1e-3
    margin_kimg: Positive = 2.0
    constraint_rate: Positive = 1e-6


@dataclass(frozen=True, config=STRICT)
class OptimizerOptions:
    """The optimiser of a network, and its learning rate `lr`.

    `name`: Adam, SGD (momentum `beta1`) or RMSprop (momentum `beta1`, smoothing `beta2`).
    `clip` limits the gradient norm (0: no limit). `weight_decay` λ adds λ/2·‖weights‖² to the loss.
    The learning rate decays linearly from `decay_from_kimg` thousand images on, to 0 at
    `decay_kimg` (0: constant).
    """

    name: Literal["adam", "sgd", "rmsprop"] = "adam"
    lr: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    decay_from_kimg: NonNegative = 0.0
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
    (Shrivastava 2017; size 0: none). One process only."""

    size: Number = 0
    share: Fraction = 0.5


@dataclass(frozen=True, config=STRICT)
class UnrollOptions:
    """The generator learns from the discriminator after `steps` more steps of gradient descent
    with learning rate `lr` (Metz 2017; 0: that of the discriminator's SGD)."""

    steps: Annotated[int, Field(ge=0, le=1000)] = 0
    lr: NonNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class BlockOptions:
    """Block-wise alternation: the discriminator is trained alone for `d_steps` steps, then the
    generator for `g_steps`, while the other one does not change (0 and 0: both in each step).

    Each step has a batch and latents of its own. Intervals of penalties and of path length count
    the steps of their network.
    """

    d_steps: Number = 0
    g_steps: Number = 0

    @property
    def cycle(self) -> int:
        """The number of steps after which the blocks repeat; 0: no blocks."""
        return self.d_steps + self.g_steps


@dataclass(frozen=True, config=STRICT)
class StopOptions:
    """Rules that end a run before `total_kimg`, in thousands of images (0: off).

    `chance_kimg`: for so long, the discriminator has told real from generated images no better
    than by chance (its accuracy is 50 %), although it could before. `loss_kimg`: for so long, its
    loss has been below `loss` and not below 0. Both need a few rows of `metrics.jsonl` in that
    time.
    """

    chance_kimg: NonNegative = 0.0
    loss_kimg: NonNegative = 0.0
    loss: Positive = 0.01


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
    batches, so that the mean sign of the discriminator's logits on real images (in the interval
    before the last one) approaches `ada_target`, at a speed of 0 to 1 in `ada_kimg` thousand
    images.

    `noise` is the standard deviation of Gaussian noise on the images (whose range is 2), which
    decays linearly to 0 at `noise_kimg` thousand images (0: constant; Sønderby 2017). `blur` is the
    width in pixels of a Gaussian blur of all images that the discriminator sees, which decays in
    the same way at `blur_kimg` (Karras et al. 2021, appendix F); with `init_from` there is none.
    """

    policy: Annotated[
        tuple[Literal["color", "translation", "cutout"], ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) and given else given),
    ] = ()
    ada: AdaName | tuple[AdaName, ...] = ()
    p: Fraction | Literal["adaptive"] = "adaptive"
    ada_target: Annotated[float, Field(ge=-1, le=1)] = 0.6
    ada_kimg: Positive = 500.0
    ada_interval: Count = 4
    noise: NonNegative = 0.0
    noise_kimg: NonNegative = 0.0
    blur: Annotated[float, Field(ge=0, le=1000)] = 0.0
    blur_kimg: NonNegative = 0.0

"""Options of the generators with styles, and of StyleGAN3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import (
    Count,
    Fraction,
    Layers,
    NonNegative,
    Number,
    Positive,
    UnsupportedGeneratorOptions,
)


@dataclass(frozen=True, config=STRICT)
class StyledGeneratorOptions:
    """Options of every generator with styles.

    `mapping_layers` layers of `w_dim` units, trained at `mapping_lr_multiplier` times the learning
    rate, map latents to w; labels enter by a learned `embedding`. `w_avg_beta` is the decay of the
    mean w, `style_mixing_prob` the fraction of samples with a second w from a random layer on.
    `z_dim` latents are noise. `condition`: labels enter, or do not.
    """

    z_dim: Count = 512
    w_dim: Count = 512
    condition: Literal["none", "embedding"] = "none"
    mapping_layers: Layers = 8
    mapping_lr_multiplier: Positive = 0.01
    w_avg_beta: Fraction = 0.995
    style_mixing_prob: Fraction = 0.9


@dataclass(frozen=True, config=STRICT)
class StyleGan3Generator(StyledGeneratorOptions, UnsupportedGeneratorOptions):
    """The generator of StyleGAN3 (Karras 2021).

    `equivariance`: `translation` (configuration T: 3×3 convolutions, separable filters) or
    `rotation` (R: 1×1 convolutions with twice the channels, radially symmetric filters). `layers`
    layers between the Fourier features and the image, the last `critical` of them sampled
    critically. From the first layer to these, the cutoff frequency grows geometrically from
    `first_cutoff` cycles per image to half the resolution, and the stopband from `first_stopband`
    to `last_stopband` times the last cutoff. A layer with cutoff f has `channel_base` / 2f
    channels, at most `channel_max`. Maps have `margin` more pixels on each side than the image.
    Filters have `filter_size` taps per pixel of the lower resolution. `conv_clamp` limits
    activations (0: no limit, but 256 in fp16), `output_scale` multiplies the image.
    `magnitude_beta` is the decay, per pass in training, of the mean square of each layer's input,
    by which the layer divides it.
    """

    name: Literal["stylegan3"] = "stylegan3"
    mapping_layers: Layers = 2
    w_avg_beta: Fraction = 0.998
    style_mixing_prob: Fraction = 0.0
    equivariance: Literal["translation", "rotation"] = "translation"
    channel_base: Count = 32768
    channel_max: Count = 512
    layers: Layers = 14
    critical: Number = 2
    first_cutoff: Positive = 2.0
    first_stopband: Positive = 2**2.1
    last_stopband: Positive = 2**0.3
    margin: Annotated[int, Field(ge=0, le=1000)] = 10
    filter_size: Annotated[int, Field(ge=1, le=64)] = 6
    conv_clamp: NonNegative = 256.0
    output_scale: Positive = 0.25
    magnitude_beta: Fraction = 0.999

"""Options of FastGAN and of the projected discriminator."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import (
    Count,
    DiscriminatorOptions,
    GeneratorOptions,
    NonNegative,
    Number,
)


@dataclass(frozen=True, config=STRICT)
class FastganGenerator(GeneratorOptions):
    """The generator of FastGAN (Liu et al. 2021): gated blocks with learned noise, and skip-layer
    excitation.

    `width` is the number of channels at 128 px (ngf); at 4 px there are 16 times as many, at 1024
    px an eighth. `lite` omits the second convolution of every other block, with its noise (Sauer et
    al. 2021).
    """

    name: Literal["fastgan"] = "fastgan"
    width: Count = 64
    lite: bool = False
    z_dim: Count = 256
    embedding: Count = 64
    spectral: bool = True


@dataclass(frozen=True, config=STRICT)
class FastganDiscriminator(DiscriminatorOptions):
    """The discriminator of FastGAN (Liu et al. 2021): it classifies patches, and learns features by
    reconstructing real images from them.

    `width` is the number of channels at 64 px (ndf); at 4 px there are 16 times as many.
    `reconstruction` is the distance between an image and its reconstruction: of features of a
    frozen network (`perceptual`), the mean absolute difference (`l1`), or none.
    """

    name: Literal["fastgan"] = "fastgan"
    width: Count = 64
    spectral: bool = True
    reconstruction: Literal["perceptual", "l1", "none"] = "perceptual"


@dataclass(frozen=True, config=STRICT)
class ProjectedDiscriminator:
    """Discriminators on features of a frozen network (Sauer et al. 2021).

    Images are resized to `size` px per side (0: not resized) for the network. Its maps of four
    scales are mixed across channels and scales by fixed random weights, to `width` channels at the
    largest scale; each scale has its own discriminator. `separable` convolutions are cheaper.
    Labels enter by a `projection` (`condition`), with `pixels` in the pixel discriminator alone.
    `spectral` normalises every weight (Miyato 2018), those of the pixel discriminator only if
    `pixel_spectral` is on.

    `norm`: separate batch norm over real and fake images (the published `batch`) removes what all
    images of a batch have in common, so that pale colours on all fakes are hardly noticed; `joint`
    normalises both together.

    `pixel_width` adds a pixel discriminator, which sees the image itself: a DCGAN discriminator of
    that width without norm (0: none). If there is one, R1 and other penalties limit it alone. For
    the first `features_kimg` thousand images the pixel discriminator trains alone, which learns
    whole shapes in less time; then those on features join. `pixel_logits` is how many times its
    logit counts; up to 128 px each scale has one logit.
    """

    name: Literal["projected"] = "projected"
    condition: Literal["none", "projection", "pixels"] = "none"
    width: Annotated[int, Field(ge=8, le=1_000_000)] = 64
    size: Annotated[int, Field(ge=0, le=4096)] = 224
    separable: bool = False
    spectral: bool = True
    norm: Literal["batch", "joint"] = "batch"
    pixel_width: Number = 0
    pixel_spectral: bool = True
    features_kimg: NonNegative = 0.0
    pixel_logits: Count = 1
    classifier: ClassVar[bool] = False
    packing: ClassVar[int] = 1

"""Options of networks that translate images, and of their discriminator."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import (
    Count,
    Init,
    UnsupportedDiscriminatorOptions,
    UnsupportedGeneratorOptions,
)


@dataclass(frozen=True, config=STRICT)
class TranslatorGenerator(UnsupportedGeneratorOptions):
    """The generator of CycleGAN (Zhu 2017, appendix 7.2, after Johnson 2016): from images to images
    of the same size, which is a multiple of 4.

    `width` is the number of channels next to the image, `blocks` the number of residual blocks at a
    quarter of the size, with four times as many channels: 6 for 128 px and 9 for 256 px in the
    paper. `upsample`: transposed convolutions as published, or doubling (`nearest`) followed by a
    convolution of the same size, which avoids checkerboards (Odena 2016). `init` draws the first
    weights, with the names of the other generators.
    """

    condition: ClassVar[str] = "none"
    name: Literal["translator"] = "translator"
    width: Count = 64
    blocks: Annotated[int, Field(ge=0, le=100)] = 9
    upsample: Literal["transposed", "nearest"] = "transposed"
    init: Init = "dcgan"


@dataclass(frozen=True, config=STRICT)
class PatchganDiscriminator(UnsupportedDiscriminatorOptions):
    """PatchGAN (Isola 2017): convolutions, each of whose logits classifies a patch of the image.

    `layers` are halvings of the size: 3 for patches of 70×70 px, 2 for 34×34, 1 for 16×16. `width`
    is the number of channels after the first one; they double with each layer, up to eight times
    `width`. `norm` is that of the hidden layers but the first. `init` draws the first weights, with
    the names of the generator's.
    """

    condition: ClassVar[str] = "none"
    name: Literal["patchgan"] = "patchgan"
    width: Count = 64
    layers: Annotated[int, Field(ge=1, le=8)] = 3
    norm: Literal["instance", "none"] = "instance"
    init: Init = "dcgan"

"""Options of the networks: one class per kind of generator and discriminator.

`training.config` combines them. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import (
    ConvWidthOptions,
    Count,
    DiscriminatorOptions,
    GeneratorOptions,
    Init,
    Layers,
    NonNegative,
    Number,
    Positive,
    SemiSupervisedOptions,
    Taps,
    UnsupportedDiscriminatorOptions,
    UnsupportedGeneratorOptions,
    VectorOptions,
    choose_kind,
)
from training.options.efficient import (
    FastganDiscriminator,
    FastganGenerator,
    ProjectedDiscriminator,
)
from training.options.styled import StyledGeneratorOptions, StyleGan3Generator
from training.options.translation import PatchganDiscriminator, TranslatorGenerator


@dataclass(frozen=True, config=STRICT)
class DcganGenerator(ConvWidthOptions, GeneratorOptions):
    """The generator of Radford et al. 2016 and its successors.

    `upsample` is a stride-2 transposed convolution of size `kernel`, or doubling followed by a 3×3
    convolution. `last`: the image is the output of the last doubling (`up`), or of a 3×3
    convolution at full size (`conv3`). `norm` and `activation` are those of the hidden layers.
    """

    name: Literal["dcgan"] = "dcgan"
    kernel: Literal[3, 4, 5] = 4
    upsample: Literal["transposed", "nearest", "bilinear"] = "transposed"
    last: Literal["up", "conv3"] = "up"
    norm: Literal["batch", "none"] = "batch"
    activation: Literal["relu", "leaky"] = "relu"


@dataclass(frozen=True, config=STRICT)
class DcganDiscriminator(
    ConvWidthOptions, SemiSupervisedOptions, VectorOptions, DiscriminatorOptions
):
    """The discriminator of Radford et al. 2016 and its successors.

    `norm_from` is the first normalised layer (0 is the one next to the image). `bias` adds biases
    to its convolutions. `norm` is that of the hidden layers. `kernel` is the size of its stride-2
    convolutions.
    """

    name: Literal["dcgan"] = "dcgan"
    kernel: Literal[3, 4, 5] = 4
    norm: Literal["batch", "instance", "none"] = "batch"
    norm_from: Number = 1
    bias: bool = False


@dataclass(frozen=True, config=STRICT)
class MlpGenerator(GeneratorOptions):
    """The fully connected generator of Goodfellow et al. 2014: hidden layers of `widths` units
    with this `norm` and `activation`."""

    name: Literal["mlp"] = "mlp"
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)] = (1200, 1200)
    norm: Literal["batch", "none"] = "none"
    activation: Literal["relu", "leaky"] = "relu"


@dataclass(frozen=True, config=STRICT)
class MlpDiscriminator(SemiSupervisedOptions, VectorOptions, DiscriminatorOptions):
    """The fully connected discriminator of Goodfellow et al. 2014: hidden layers of `widths`
    units. `activation`: maxout over `pieces` (Goodfellow 2013) or leaky ReLU."""

    name: Literal["mlp"] = "mlp"
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)] = (240, 240)
    activation: Literal["maxout", "leaky"] = "maxout"
    pieces: Annotated[int, Field(ge=2, le=100)] = 5


@dataclass(frozen=True, config=STRICT)
class ResnetGenerator(ConvWidthOptions, GeneratorOptions):
    """The residual generator of WGAN-GP (Gulrajani 2017), SNGAN (Miyato 2018) and SAGAN (Zhang
    2019): one block per doubling; the first layer has the channels of the deepest block. `norm` is
    that inside the blocks."""

    name: Literal["resnet"] = "resnet"
    norm: Literal["batch", "none"] = "batch"


@dataclass(frozen=True, config=STRICT)
class ResnetDiscriminator(
    ConvWidthOptions, SemiSupervisedOptions, VectorOptions, DiscriminatorOptions
):
    """The residual discriminator of WGAN-GP, SNGAN and SAGAN: one block per halving until the maps
    are at most `smallest` px high, then `plain` blocks of the same size, then the sum over the map.

    `norm` `layer` is that of WGAN-GP (the only one compatible with a gradient penalty).
    """

    name: Literal["resnet"] = "resnet"
    smallest: Annotated[int, Field(ge=4, le=16_384)] = 4
    plain: Annotated[int, Field(ge=0, le=100)] = 1
    norm: Literal["none", "layer"] = "none"


@dataclass(frozen=True, config=STRICT)
class StyleGan2WidthOptions:
    """Widths and filters of StyleGAN2's layers (Karras 2020a, b).

    Maps h px high (the smaller side) have `channel_base` / h channels, at most `channel_max`.
    `resample`: the published low-pass `filter` around each resampling, with the taps
    `resample_filter`, or `economical`: bilinear after a convolution, and 2×2 means before it.
    `conv_clamp` limits activations; 0: no limit, but 256 in fp16, as published.
    """

    channel_base: Count = 32768
    channel_max: Count = 512
    resample: Literal["filter", "economical"] = "filter"
    resample_filter: Taps = (1.0, 3.0, 3.0, 1.0)
    conv_clamp: NonNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class StyleGan2Generator(
    StyleGan2WidthOptions, StyledGeneratorOptions, UnsupportedGeneratorOptions
):
    """The generator of StyleGAN2 (Karras 2020a) as in StyleGAN2-ADA (Karras 2020b).

    `style` is weight `demodulation`, or `adain` (StyleGAN, Karras 2019). `noise_mode`: `random`
    while training and fixed when sampling, always fixed (`const`), or `none`. `architecture` is how
    the image leaves the blocks: summed over them (`skip`), of residual blocks (`resnet`), or of the
    last one (`orig`).
    """

    name: Literal["stylegan2"] = "stylegan2"
    architecture: Literal["skip", "resnet", "orig"] = "skip"
    style: Literal["demodulation", "adain"] = "demodulation"
    noise_mode: Literal["random", "const", "none"] = "random"


@dataclass(frozen=True, config=STRICT)
class StyleGan2Discriminator(StyleGan2WidthOptions, UnsupportedDiscriminatorOptions):
    """The discriminator of StyleGAN2 (Karras 2020a).

    `mbstd_channels` with the standard deviation over groups of `mbstd_group_size` samples are
    appended before its last convolution (0 channels: none; the number divides the channels of these
    maps). Labels go through `mapping_layers` layers, trained at `mapping_lr_multiplier` times the
    learning rate, to a `projection` on the last features (`condition`). `architecture` is how the
    image enters the blocks: each of them (`skip`), or the first of residual (`resnet`) or plain
    (`orig`) ones.
    """

    name: Literal["stylegan2"] = "stylegan2"
    condition: Literal["none", "projection"] = "none"
    mapping_layers: Layers = 8
    mapping_lr_multiplier: Positive = 0.01
    architecture: Literal["resnet", "skip", "orig"] = "resnet"
    mbstd_group_size: Count = 4
    mbstd_channels: Number = 1


@dataclass(frozen=True, config=STRICT)
class AutoencoderDiscriminator(ConvWidthOptions, UnsupportedDiscriminatorOptions):
    """A discriminator that reconstructs images, for the losses ebgan, began and magan: its output
    is the error (Zhao 2017, Berthelot 2017, Wang 2017).

    The encoder has the layers of DCGAN's discriminator, and `code` outputs; the decoder those of
    its generator, with doublings by `upsample`. `norm` is that of the hidden layers of both.
    `attention` adds a self-attention layer to both after the maps of that height (Zhang 2019; 0:
    none), after the smallest maps to the encoder alone. `distance` is the mean absolute (`l1`) or
    squared (`l2`) difference of an image and its reconstruction. `init` draws the first weights,
    with the names of the generator's.
    """

    name: Literal["autoencoder"] = "autoencoder"
    code: Count = 64
    upsample: Literal["transposed", "nearest", "bilinear"] = "transposed"
    norm: Literal["batch", "none"] = "none"
    distance: Literal["l1", "l2"] = "l1"
    init: Init = "dcgan"
    condition: ClassVar[str] = "none"


@dataclass(frozen=True, config=STRICT)
class R3ganStageOptions:
    """Widths and depths of R3GAN's residual stages (Huang et al. 2024), one per map size.

    `widths` of the stages' maps from the image inwards, `blocks` of each, and the `cardinality` of
    their grouped convolutions (empty: groups of 16 channels, as in all published sizes); one number
    applies to all stages. A block has `expansion` times as many channels inside. `resample`: by the
    published `filter` (1, 3, 3, 1), or by 2×2 boxes (`box`), which is cheaper.
    """

    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)] = (
        384,
        768,
        768,
        768,
        768,
    )
    blocks: Annotated[tuple[Layers, ...], Field(min_length=1, max_length=16)] = (2,)
    cardinality: Annotated[tuple[Count, ...], Field(max_length=16)] = ()
    expansion: Count = 2
    resample: Literal["filter", "box"] = "filter"


@dataclass(frozen=True, config=STRICT)
class R3ganGenerator(R3ganStageOptions, GeneratorOptions):
    """The generator of R3GAN. Its blocks start as the identity (`init` fix-up)."""

    name: Literal["r3gan"] = "r3gan"
    z_dim: Count = 64
    embedding: Count = 64
    output: Literal["tanh", "sigmoid", "linear"] = "linear"
    init: Literal["fixup"] = "fixup"  # type: ignore[assignment]


@dataclass(frozen=True, config=STRICT)
class R3ganDiscriminator(R3ganStageOptions, DiscriminatorOptions):
    """The discriminator of R3GAN. Its blocks start as the identity (`init` fix-up)."""

    name: Literal["r3gan"] = "r3gan"
    init: Literal["fixup"] = "fixup"  # type: ignore[assignment]


def _choice(*names: str) -> Discriminator:
    """Selects the kind by the `name` of the section."""
    return choose_kind("dcgan", names)


AnyGeneratorOptions = Annotated[
    Annotated[DcganGenerator, Tag("dcgan")]
    | Annotated[MlpGenerator, Tag("mlp")]
    | Annotated[ResnetGenerator, Tag("resnet")]
    | Annotated[R3ganGenerator, Tag("r3gan")]
    | Annotated[FastganGenerator, Tag("fastgan")]
    | Annotated[StyleGan2Generator, Tag("stylegan2")]
    | Annotated[StyleGan3Generator, Tag("stylegan3")]
    | Annotated[TranslatorGenerator, Tag("translator")],
    _choice("dcgan", "fastgan", "mlp", "r3gan", "resnet", "stylegan2", "stylegan3", "translator"),
]
AnyDiscriminatorOptions = Annotated[
    Annotated[DcganDiscriminator, Tag("dcgan")]
    | Annotated[MlpDiscriminator, Tag("mlp")]
    | Annotated[ResnetDiscriminator, Tag("resnet")]
    | Annotated[R3ganDiscriminator, Tag("r3gan")]
    | Annotated[AutoencoderDiscriminator, Tag("autoencoder")]
    | Annotated[FastganDiscriminator, Tag("fastgan")]
    | Annotated[PatchganDiscriminator, Tag("patchgan")]
    | Annotated[ProjectedDiscriminator, Tag("projected")]
    | Annotated[StyleGan2Discriminator, Tag("stylegan2")],
    _choice(
        "autoencoder",
        "dcgan",
        "fastgan",
        "mlp",
        "patchgan",
        "projected",
        "r3gan",
        "resnet",
        "stylegan2",
    ),
]


def features_kimg(options: AnyDiscriminatorOptions) -> float:
    """Return the thousand images after which discriminators on frozen features join that of pixels
    (0: from the start, or there are none)."""
    return float(getattr(options, "features_kimg", 0.0))


def is_semi_supervised(options: object) -> bool:
    """Return True if the discriminator has the head with K + 1 classes."""
    return isinstance(options, SemiSupervisedOptions) and options.semi_supervised


class Codes(Protocol):
    """Options with InfoGAN's codes."""

    @property
    def categorical(self) -> tuple[int, ...]: ...
    @property
    def continuous(self) -> int: ...


def code_count(options: Codes) -> int:
    """Return the number of latents used by InfoGAN's codes."""
    return sum(options.categorical) + options.continuous

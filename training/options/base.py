"""Options that several kinds of networks have."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]


NonNegative = Annotated[float, Field(ge=0, le=1e100)]


Positive = Annotated[float, Field(gt=0, le=1e100)]


Taps = Annotated[tuple[float, ...], Field(min_length=1, max_length=64)]


Count = Annotated[int, Field(ge=1, lt=2**53)]


Number = Annotated[int, Field(ge=0, lt=2**53)]


Layers = Annotated[int, Field(ge=1, le=100)]


Init = Literal["dcgan", "default", "orthogonal", "xavier"]


@dataclass(frozen=True, config=STRICT)
class GeneratorOptions:
    """Options of every generator.

    `z_dim` latents are noise. InfoGAN's codes (Chen 2016) are added: for each number in
    `categorical` a code with that many categories, and `continuous` continuous codes. `condition`:
    labels enter as an `embedding` of that dimension beside the latents, or as gains and offsets of
    each `norm` (Dumoulin 2017). `noise` is the standard deviation of Gaussian noise after each
    hidden layer while training, `dropout` the fraction of zeros there (`dropout_at_test` keeps it
    when sampling, Isola 2017). `output` is the function after the last layer. `spectral` normalises
    every weight (Miyato 2018). `init` draws the first weights: N(0, 0.02) as `dcgan` does,
    PyTorch's `default`, `orthogonal` or `xavier`.
    """

    z_dim: Count = 100
    condition: Literal["none", "embedding", "norm"] = "none"
    embedding: Count = 32
    categorical: Annotated[
        tuple[Annotated[int, Field(ge=2, le=100_000)], ...], Field(max_length=1000)
    ] = ()
    continuous: Number = 0
    noise: NonNegative = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout_at_test: bool = False
    output: Literal["tanh", "sigmoid", "linear"] = "tanh"
    spectral: bool = False
    init: Init = "dcgan"


@dataclass(frozen=True, config=STRICT)
class DiscriminatorOptions:
    """Options of every discriminator.

    `condition`: labels enter as an additional channel learned per label (`embedding`, Mirza &
    Osindero 2014), or as a `projection` on the last features (Miyato & Koyama 2018). `classifier`
    adds AC-GAN's prediction of the label (Odena 2017). `packing` classifies that many images
    together (Lin 2018). `minibatch_stddev` appends a channel with the standard deviation over
    groups of that many samples before the last layer (Karras 2018; 0: none). `spectral` normalises
    every weight (Miyato 2018). `dropout` follows each hidden layer. `init` draws the first weights,
    with the names of the generator's.
    """

    condition: Literal["none", "embedding", "projection"] = "none"
    classifier: bool = False
    packing: Annotated[int, Field(ge=1, le=1000)] = 1
    minibatch_stddev: Number = 0
    spectral: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init: Init = "dcgan"


@dataclass(frozen=True, config=STRICT)
class SemiSupervisedOptions:
    """`semi_supervised`: the discriminator predicts the label or "fake", K + 1 classes, and
    learns from labelled and unlabelled images (Salimans 2016, section 5; Odena 2016)."""

    semi_supervised: bool = False


@dataclass(frozen=True, config=STRICT)
class VectorOptions:
    """`outputs` is the number of the discriminator's outputs for an image: one logit, or a vector
    for the losses that compare vectors (Li 2017, Bellemare 2017, Mroueh 2017)."""

    outputs: Annotated[int, Field(ge=1, le=100_000)] = 1


@dataclass(frozen=True, config=STRICT)
class ConvWidthOptions:
    """Widths of a convolutional network.

    `width` is the number of channels next to the image (ngf, ndf); `multipliers` are those of all
    hidden layers from the image inwards, in units of `width` (empty: 1, 2, 4, 8, …); `max_width`
    limits them (0: no limit). `attention` adds a self-attention layer after the maps of that height
    (Zhang 2019; 0: none).
    """

    width: Count = 64
    multipliers: Annotated[tuple[Count, ...], Field(max_length=16)] = ()
    max_width: Number = 0
    attention: Number = 0


class UnsupportedGeneratorOptions:
    """Options of a generator without InfoGAN's codes and the older techniques."""

    categorical: ClassVar[tuple[int, ...]] = ()
    continuous: ClassVar[int] = 0
    dropout: ClassVar[float] = 0.0
    dropout_at_test: ClassVar[bool] = False
    spectral: ClassVar[bool] = False


class UnsupportedDiscriminatorOptions:
    """The same for a discriminator."""

    classifier: ClassVar[bool] = False
    packing: ClassVar[int] = 1
    spectral: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.0


def choose_kind(default: str, names: tuple[str, ...]) -> Discriminator:
    """Selects the class of a section by its `name`, one of `names`."""

    def kind(options: Any) -> str | None:
        name = (
            options.get("name", default)
            if isinstance(options, dict)
            else getattr(options, "name", None)
        )
        return name if isinstance(name, str) else None

    return Discriminator(
        kind,
        custom_error_type="kind",
        custom_error_message=f"must be a section whose name is one of {', '.join(names)}",
    )

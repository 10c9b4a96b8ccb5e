"""Options of the training methods: what is trained beside generator and discriminator, and on what.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import (
    ConvWidthOptions,
    Count,
    Fraction,
    Init,
    NonNegative,
    Positive,
    choose_kind,
)


class MethodOptions:
    """What the other options must know of a method."""

    learns_labels: ClassVar[bool] = False
    """Whether it is told some labels and finds the others itself."""
    sets: ClassVar[int] = 1
    """The number of sets of images that it learns from; with 2, generators translate images of one
    to the other, and a batch has pairs of images, one beside the other in the channels."""


@dataclass(frozen=True, config=STRICT)
class GanMethod(MethodOptions):
    """No networks but generator and discriminator (Goodfellow 2014)."""

    name: Literal["gan"] = "gan"


@dataclass(frozen=True, config=STRICT)
class EncoderOptions(ConvWidthOptions):
    """A network with the layers of DCGAN's discriminator, from images to latents or to labels.

    `norm` is that of the hidden layers but the first, `dropout` follows each of them. `init` draws
    the first weights, with the names of the generator's.
    """

    norm: Literal["batch", "none"] = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init: Init = "dcgan"


@dataclass(frozen=True, config=STRICT)
class BiganMethod(MethodOptions):
    """An encoder E maps images to latents, and the discriminator tells pairs (x, E(x)) from pairs
    (G(z), z) (BiGAN, Donahue 2017; ALI, Dumoulin 2017).

    With `stochastic`, E gives a Gaussian, from which a latent is drawn (ALI); without, one latent
    (BiGAN). `pair_widths` are the hidden layers of the discriminator for both parts of a pair.
    """

    name: Literal["bigan"] = "bigan"
    stochastic: bool = False
    pair_widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)] = (512, 512)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)


@dataclass(frozen=True, config=STRICT)
class VaeGanMethod(MethodOptions):
    """A variational autoencoder whose decoder is the generator, and whose distance between images
    is learned by the discriminator (VAE/GAN, Larsen 2016).

    `similarity` compares an image with its reconstruction by the last `features` of the
    discriminator, or by `pixels` (a VAE and a GAN that share a network). `gamma` weights it in the
    generator's loss against the adversarial loss. `kl` weights the divergence of the encoder's
    Gaussians from the distribution of latents in the encoder's loss.
    """

    name: Literal["vae-gan"] = "vae-gan"
    similarity: Literal["features", "pixels"] = "features"
    gamma: Positive = 0.01
    kl: NonNegative = 1.0
    encoder: EncoderOptions = field(default_factory=EncoderOptions)


@dataclass(frozen=True, config=STRICT)
class TripleGanMethod(MethodOptions):
    """A classifier C is the third player: the discriminator tells labelled images (x, y) from
    images with labels of the classifier (x, C(x)) and from generated ones (G(y, z), y) (Triple-GAN,
    Li 2017). Only some images need a label.

    `alpha` is the classifier's share in the game, the generator has the rest. `pseudo` weights
    generated images as examples for the classifier. `positives` weights images without a label, as
    the classifier labels them, among the real ones (section 3.3 of the paper; 0: only labelled
    images). `consistency` weights the distance of two predictions for each image, with different
    dropout (Laine & Aila 2017; the paper's code reaches 100 after 80 epochs).
    """

    learns_labels: ClassVar[bool] = True
    name: Literal["triple-gan"] = "triple-gan"
    alpha: Fraction = 0.5
    pseudo: NonNegative = 0.1
    positives: Fraction = 0.5
    consistency: NonNegative = 0.0
    classifier: EncoderOptions = field(default_factory=EncoderOptions)


@dataclass(frozen=True, config=STRICT)
class CycleganMethod(MethodOptions):
    """Two generators translate between two sets of images without pairs, A to B and B to A, and
    each set has a discriminator (CycleGAN, Zhu 2017).

    `cycle` weights the distance between an image and its translation there and back, `identity`
    that between an image and its translation into its own set (section 5.2 of the paper), which
    keeps colours.
    """

    sets: ClassVar[int] = 2
    name: Literal["cyclegan"] = "cyclegan"
    cycle: Positive = 10.0
    identity: NonNegative = 5.0


AnyMethodOptions = Annotated[
    Annotated[GanMethod, Tag("gan")]
    | Annotated[BiganMethod, Tag("bigan")]
    | Annotated[CycleganMethod, Tag("cyclegan")]
    | Annotated[TripleGanMethod, Tag("triple-gan")]
    | Annotated[VaeGanMethod, Tag("vae-gan")],
    choose_kind("gan", ("bigan", "cyclegan", "gan", "triple-gan", "vae-gan")),
]

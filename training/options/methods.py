"""Options of the training methods: what is trained beside generator and discriminator, and on what.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Tag
from pydantic.dataclasses import dataclass

from pipeline.contract import STRICT
from training.options.base import ConvWidthOptions, Count, Init, NonNegative, Positive, choose_kind


@dataclass(frozen=True, config=STRICT)
class GanMethod:
    """No networks but generator and discriminator (Goodfellow 2014)."""

    name: Literal["gan"] = "gan"


@dataclass(frozen=True, config=STRICT)
class EncoderOptions(ConvWidthOptions):
    """The encoder, with the layers of DCGAN's discriminator, from images to latents.

    `norm` is that of the hidden layers but the first. `init` draws the first weights, with the
    names of the generator's.
    """

    norm: Literal["batch", "none"] = "batch"
    init: Init = "dcgan"


@dataclass(frozen=True, config=STRICT)
class BiganMethod:
    """An encoder E maps images to latents, and the discriminator tells pairs (x, E(x)) from pairs
    (G(z), z) (BiGAN, Donahue 2017; ALI, Dumoulin 2017).

    With `stochastic`, E gives a Gaussian, from which a latent is drawn (ALI); without, one latent
    (BiGAN). `pair_widths` are the hidden layers of the discriminator for both parts of a pair.
    """

    name: Literal["bigan"] = "bigan"
    stochastic: bool = False
    pair_widths: tuple[Count, ...] = (512, 512)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)


@dataclass(frozen=True, config=STRICT)
class VaeGanMethod:
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


AnyMethodOptions = Annotated[
    Annotated[GanMethod, Tag("gan")]
    | Annotated[BiganMethod, Tag("bigan")]
    | Annotated[VaeGanMethod, Tag("vae-gan")],
    choose_kind("gan", ("bigan", "gan", "vae-gan")),
]

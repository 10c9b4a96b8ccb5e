"""A discriminator that is an autoencoder (Zhao et al. 2017, section 2.3; Berthelot et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput
from training.networks.dcgan import DcganG, halving_block, halving_layers
from training.networks.layers import init_weights
from training.options.architectures import AutoencoderDiscriminator, DcganGenerator


class AutoencoderD(Discriminator):
    """The logit of an image is minus the error of its reconstruction, the mean over its numbers;
    the features are its code (n, code)."""

    def __init__(self, options: AutoencoderDiscriminator, shape: ImageShape) -> None:
        super().__init__()
        layers, maps, end = halving_layers(
            options, shape, shape.channels, halving_block(options.norm)
        )
        self.hidden = nn.Sequential(*layers)
        self.code = nn.Conv2d(maps, options.code, end)
        decoder = DcganGenerator(
            z_dim=options.code, width=options.width, multipliers=options.multipliers,
            max_width=options.max_width, attention=options.attention, upsample=options.upsample,
            norm=options.norm, activation="leaky", output="linear", init=options.init,
        )  # fmt: skip
        self.decoder = DcganG(decoder, shape)
        self._squares = options.distance == "l2"
        init_weights(self.hidden, options.init)
        init_weights(self.code, options.init)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        code = self.code(self.hidden(images)).flatten(1)
        apart = (self.decoder(code, labels).float() - images.float()).flatten(1)
        errors = (apart.square() if self._squares else apart.abs()).mean(dim=1)
        return DiscriminatorOutput(-errors, code)


def autoencoder_discriminator(
    options: AutoencoderDiscriminator, shape: ImageShape, _codes: int
) -> Discriminator:
    return AutoencoderD(options, shape)

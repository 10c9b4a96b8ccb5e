"""The fully connected GAN of Goodfellow et al. 2014, for images of MNIST's size."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput, Generator
from training.networks.conditioning import DiscriminatorInput, LatentInput
from training.networks.heads import Head
from training.networks.layers import (
    Dropout,
    apply_spectral_norm,
    init_weights,
    noise_and_dropout,
    to_image_range,
)  # fmt: skip
from training.options.architectures import MlpDiscriminator, MlpGenerator


class MlpG(Generator):
    def __init__(self, options: MlpGenerator, shape: ImageShape) -> None:
        super().__init__()
        if options.condition == "norm":
            raise UserError(
                'generator.condition: "norm" is supported only by convolutional generators'
            )
        self.entry = LatentInput(options, shape)
        self.z_dim, self.output, self.shape = self.entry.z_dim, options.output, shape
        layers: list[nn.Module] = []
        below = self.entry.size
        for above in options.widths:
            layers.append(nn.Linear(below, above))
            if options.norm == "batch":
                layers.append(nn.BatchNorm1d(above))
            layers.append(nn.LeakyReLU(0.2) if options.activation == "leaky" else nn.ReLU())
            layers += noise_and_dropout(options)
            below = above
        layers.append(nn.Linear(below, shape.channels * shape.height * shape.width))
        self.layers = nn.Sequential(*layers)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        shape = self.shape
        values = self.layers(self.entry(latents, labels))
        images = values.view(-1, shape.channels, shape.height, shape.width)
        return to_image_range(images, self.output)


class Maxout(nn.Module):
    """Maxout: the largest of `pieces` linear functions (Goodfellow 2013), (n, in) → (n, out)."""

    def __init__(self, in_channels: int, out_channels: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.pieces = nn.Linear(in_channels, out_channels * pieces), pieces

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values).unflatten(1, (-1, self.pieces)).amax(dim=2)  # type: ignore[no-any-return]


class MlpD(Discriminator):
    def __init__(self, options: MlpDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.input = DiscriminatorInput(options, shape)
        layers: list[nn.Module] = [nn.Flatten()]
        below = self.input.channels * shape.height * shape.width
        for above in options.widths:
            if options.activation == "maxout":
                layers.append(Maxout(below, above, options.pieces))
            else:
                layers += [nn.Linear(below, above), nn.LeakyReLU(0.2)]
            if options.dropout:
                layers.append(Dropout(options.dropout))
            below = above
        self.hidden = nn.Sequential(*layers, nn.Unflatten(1, (below, 1, 1)))
        self.head = Head(options, shape, below, (1, 1), codes)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        output: DiscriminatorOutput = self.head(self.hidden(self.input(images, labels)), labels)
        return output


def mlp_generator(options: MlpGenerator, shape: ImageShape) -> Generator:
    return MlpG(options, shape)


def mlp_discriminator(options: MlpDiscriminator, shape: ImageShape, codes: int) -> Discriminator:
    return MlpD(options, shape, codes)

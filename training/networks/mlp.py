"""The fully connected GAN of Goodfellow et al. 2014, for images of MNIST's size."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.contract import UserError
from training.networks.base import Discriminator, Generator, ImageShape, Verdict
from training.networks.conditioning import Entry, Sight
from training.networks.heads import Head
from training.networks.layers import (
    Dropout,
    disturbances,
    initialise,
    normalise_spectrum,
    output_range,
)  # fmt: skip
from training.options.architectures import MlpDiscriminator, MlpGenerator


class MlpG(Generator):
    def __init__(self, table: MlpGenerator, shape: ImageShape) -> None:
        super().__init__()
        if table.condition == "norm":
            raise UserError('generator.condition: "norm" is for convolutional generators')
        self.entry = Entry(table, shape)
        self.z_dim, self.output, self.shape = self.entry.z_dim, table.output, shape
        layers: list[nn.Module] = []
        below = self.entry.size
        for above in table.widths:
            layers.append(nn.Linear(below, above))
            if table.norm == "batch":
                layers.append(nn.BatchNorm1d(above))
            layers.append(nn.LeakyReLU(0.2) if table.activation == "leaky" else nn.ReLU())
            layers += disturbances(table)
            below = above
        layers.append(nn.Linear(below, shape.channels * shape.height * shape.width))
        self.layers = nn.Sequential(*layers)
        initialise(self, table.init)
        if table.spectral:
            normalise_spectrum(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        shape = self.shape
        values = self.layers(self.entry(latents, labels))
        images = values.view(-1, shape.channels, shape.height, shape.width)
        return output_range(images, self.output)


class Maxout(nn.Module):
    """The largest of `pieces` linear functions (Goodfellow 2013): (n, below) → (n, above)."""

    def __init__(self, below: int, above: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.pieces = nn.Linear(below, above * pieces), pieces

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values).unflatten(1, (-1, self.pieces)).amax(dim=2)  # type: ignore[no-any-return]


class MlpD(Discriminator):
    def __init__(self, table: MlpDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.sight = Sight(table, shape)
        layers: list[nn.Module] = [nn.Flatten()]
        below = self.sight.channels * shape.height * shape.width
        for above in table.widths:
            if table.activation == "maxout":
                layers.append(Maxout(below, above, table.pieces))
            else:
                layers += [nn.Linear(below, above), nn.LeakyReLU(0.2)]
            if table.dropout:
                layers.append(Dropout(table.dropout))
            below = above
        self.hidden = nn.Sequential(*layers, nn.Unflatten(1, (below, 1, 1)))
        self.head = Head(table, shape, below, (1, 1), codes)
        initialise(self, table.init)
        if table.spectral:
            normalise_spectrum(self)

    def forward(self, images: Tensor, labels: Tensor) -> Verdict:
        verdict: Verdict = self.head(self.hidden(self.sight(images, labels)), labels)
        return verdict


def mlp_generator(table: MlpGenerator, shape: ImageShape) -> Generator:
    return MlpG(table, shape)


def mlp_discriminator(table: MlpDiscriminator, shape: ImageShape, codes: int) -> Discriminator:
    return MlpD(table, shape, codes)

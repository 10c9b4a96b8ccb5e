"""DCGAN (Radford, Metz, Chintala 2016) for any size s·2^k: 28, 32, 64, 128, 256 px …

The smallest map is what remains when the height is halved as often as it stays at 4 or more: 4 for
the powers of two, 7 for 28. Non-square images keep their ratio in it.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.networks.attention import SelfAttention
from training.networks.base import Discriminator, Generator, ImageShape, Verdict
from training.networks.conditioning import Entry, Layers, Sight, generator_norm
from training.networks.heads import Head
from training.networks.layers import (
    Dropout,
    disturbances,
    initialise,
    normalise_spectrum,
    output_range,
)  # fmt: skip
from training.networks.sizes import attention_at, doublings, widths
from training.options.architectures import DcganDiscriminator, DcganGenerator


class DcganG(Generator):
    def __init__(self, table: DcganGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.entry = Entry(table, shape)
        self.z_dim, self.output = self.entry.z_dim, table.output
        steps = doublings(shape)
        hidden = steps + (table.last == "conv3")  # with conv3 the last doubling is hidden too
        *maps, deepest = widths(table, hidden)
        heights = [shape.height >> step for step in range(steps, steps - hidden, -1)]
        attention = attention_at(table, heights)
        start = (shape.height >> steps, shape.width >> steps)
        bias = table.norm == "none"
        first = nn.ConvTranspose2d(self.entry.size, deepest, start, bias=bias)
        layers = _block(table, shape, first, deepest)
        below = deepest
        for height, above in zip(heights[1:], reversed(maps), strict=True):
            layers += _block(table, shape, _double(table, below, above), above)
            below = above
            if height == attention:
                layers.append(SelfAttention(above))
        if table.last == "conv3":
            layers.append(nn.Conv2d(below, shape.channels, 3, 1, 1))
        else:
            layers.append(_double(table, below, shape.channels))
        self.layers = Layers(layers)
        initialise(self, table.init)
        if table.spectral:
            normalise_spectrum(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        values = self.entry(latents, labels)[:, :, None, None]
        return output_range(self.layers(values, labels), self.output)


def _block(
    table: DcganGenerator, shape: ImageShape, convolution: nn.Module, maps: int
) -> list[nn.Module]:
    leaky = table.activation == "leaky"
    activation = nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)
    norm = generator_norm(table.norm, table.condition, maps, shape)
    return [convolution, *norm, activation, *disturbances(table)]


def _double(table: DcganGenerator, below: int, above: int) -> nn.Module:
    bias = table.norm == "none"
    if table.upsample == "transposed":
        odd = table.kernel % 2  # an odd kernel needs a row and a column more to double exactly
        padding = (table.kernel - 1) // 2
        return nn.ConvTranspose2d(below, above, table.kernel, 2, padding, odd, bias=bias)
    options = {} if table.upsample == "nearest" else {"align_corners": False}
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=table.upsample, **options),
        nn.Conv2d(below, above, 3, 1, 1, bias=bias),
    )


class DcganD(Discriminator):
    def __init__(self, table: DcganDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.sight = Sight(table, shape)
        steps = doublings(shape)
        attention = attention_at(table, [shape.height >> step for step in range(1, steps + 1)])
        layers: list[nn.Module] = []
        below = self.sight.channels
        for number, above in enumerate(widths(table, steps)):
            padding = (table.kernel - 1) // 2
            convolution = nn.Conv2d(below, above, table.kernel, 2, padding, bias=table.bias)
            norm = _norm(table.norm, above) if number >= table.norm_from else []
            layers += [convolution, *norm, nn.LeakyReLU(0.2, inplace=True)]
            if table.dropout:
                layers.append(Dropout(table.dropout))
            if shape.height >> (number + 1) == attention:
                layers.append(SelfAttention(above))
            below = above
        self.hidden = nn.Sequential(*layers)
        end = (shape.height >> steps, shape.width >> steps)
        self.head = Head(table, shape, below, end, codes, table.bias)
        initialise(self, table.init)
        if table.spectral:
            normalise_spectrum(self)

    def forward(self, images: Tensor, labels: Tensor) -> Verdict:
        verdict: Verdict = self.head(self.hidden(self.sight(images, labels)), labels)
        return verdict


def _norm(kind: str, maps: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(maps)]
    if kind == "instance":
        return [nn.InstanceNorm2d(maps, affine=True)]
    return []


def dcgan_generator(table: DcganGenerator, shape: ImageShape) -> Generator:
    return DcganG(table, shape)


def dcgan_discriminator(table: DcganDiscriminator, shape: ImageShape, codes: int) -> Discriminator:
    return DcganD(table, shape, codes)

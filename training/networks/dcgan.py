"""DCGAN (Radford, Metz, Chintala 2016) for any size s·2^k: 28, 32, 64, 128, 256 px …

The smallest map results from halving the height as often as it stays at 4 or more: 4 for powers of
two, 7 for 28. Maps of non-square images keep their aspect.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.attention import SelfAttention
from training.networks.base import Discriminator, DiscriminatorOutput, Generator
from training.networks.conditioning import (
    ConditionalSequential,
    DiscriminatorInput,
    LatentInput,
    generator_norm,
)
from training.networks.heads import Head
from training.networks.layers import (
    Dropout,
    apply_spectral_norm,
    init_weights,
    noise_and_dropout,
    to_image_range,
)  # fmt: skip
from training.networks.sizes import attention_at, doublings, widths
from training.options.architectures import (
    AutoencoderDiscriminator,
    DcganDiscriminator,
    DcganGenerator,
)
from training.options.methods import EncoderOptions


class DcganG(Generator):
    def __init__(self, options: DcganGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.entry = LatentInput(options, shape)
        self.z_dim, self.output = self.entry.z_dim, options.output
        steps = doublings(shape)
        # with conv3 the last doubling is a hidden layer, too
        hidden = steps + (options.last == "conv3")
        *maps, deepest = widths(options, hidden)
        heights = [shape.height >> step for step in range(steps, steps - hidden, -1)]
        # there is no layer after the smallest maps: see `require_attention`
        attention = 0 if options.attention == heights[0] else attention_at(options, heights[1:])
        start = (shape.height >> steps, shape.width >> steps)
        bias = options.norm == "none"
        first = nn.ConvTranspose2d(self.entry.size, deepest, start, bias=bias)
        layers = _block(options, shape, first, deepest)
        below = deepest
        for height, above in zip(heights[1:], reversed(maps), strict=True):
            layers += _block(options, shape, _double(options, below, above), above)
            below = above
            if height == attention:
                layers.append(SelfAttention(above))
        if options.last == "conv3":
            layers.append(nn.Conv2d(below, shape.channels, 3, 1, 1))
        else:
            layers.append(_double(options, below, shape.channels))
        self.layers = ConditionalSequential(layers)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        values = self.entry(latents, labels)[:, :, None, None]
        return to_image_range(self.layers(values, labels), self.output)


def _block(
    options: DcganGenerator, shape: ImageShape, convolution: nn.Module, maps: int
) -> list[nn.Module]:
    leaky = options.activation == "leaky"
    activation = nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)
    norm = generator_norm(options.norm, options.condition, maps, shape)
    return [convolution, *norm, activation, *noise_and_dropout(options)]


def _double(options: DcganGenerator, in_channels: int, out_channels: int) -> nn.Module:
    bias = options.norm == "none"
    if options.upsample == "transposed":
        odd = options.kernel % 2  # an odd kernel needs one more row and column to double exactly
        padding = (options.kernel - 1) // 2
        return nn.ConvTranspose2d(
            in_channels, out_channels, options.kernel, 2, padding, odd, bias=bias
        )
    settings = {} if options.upsample == "nearest" else {"align_corners": False}
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=options.upsample, **settings),
        nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias),
    )


def halving_layers(
    options: AutoencoderDiscriminator | DcganDiscriminator | EncoderOptions,
    shape: ImageShape,
    channels: int,
    halve: Callable[[int, int, int], list[nn.Module]],
) -> tuple[list[nn.Module], int, tuple[int, int]]:
    """Return the layers from images with `channels` to the smallest maps, and the number and the
    size (h, w) of these. Each halving is `halve` (its number, channels before and after), leaky
    ReLU, dropout and, at the configured height, self-attention."""
    steps = doublings(shape)
    attention = attention_at(options, [shape.height >> step for step in range(1, steps + 1)])
    layers: list[nn.Module] = []
    below = channels
    for number, above in enumerate(widths(options, steps)):
        layers += [*halve(number, below, above), nn.LeakyReLU(0.2, inplace=True)]
        if options.dropout:
            layers.append(Dropout(options.dropout))
        if shape.height >> (number + 1) == attention:
            layers.append(SelfAttention(above))
        below = above
    return layers, below, (shape.height >> steps, shape.width >> steps)


def halving_block(norm: str) -> Callable[[int, int, int], list[nn.Module]]:
    """Return the `halve` of `halving_layers` with convolutions 4×4 and this norm, which the layer
    next to the image does not have."""

    def halve(number: int, below: int, above: int) -> list[nn.Module]:
        is_normed = norm == "batch" and number > 0
        convolution = nn.Conv2d(below, above, 4, 2, 1, bias=not is_normed)
        return [convolution, nn.BatchNorm2d(above)] if is_normed else [convolution]

    return halve


class DcganD(Discriminator):
    def __init__(self, options: DcganDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.input = DiscriminatorInput(options, shape)

        def halve(number: int, below: int, above: int) -> list[nn.Module]:
            padding = (options.kernel - 1) // 2
            convolution = nn.Conv2d(below, above, options.kernel, 2, padding, bias=options.bias)
            norm = _norm(options.norm, above) if number >= options.norm_from else []
            return [convolution, *norm]

        layers, maps, end = halving_layers(options, shape, self.input.channels, halve)
        self.hidden = nn.Sequential(*layers)
        self.head = Head(options, shape, maps, end, codes, options.bias)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        output: DiscriminatorOutput = self.head(self.hidden(self.input(images, labels)), labels)
        return output


def _norm(kind: str, maps: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(maps)]
    if kind == "instance":
        return [nn.InstanceNorm2d(maps, affine=True)]
    return []


def dcgan_generator(options: DcganGenerator, shape: ImageShape) -> Generator:
    return DcganG(options, shape)


def dcgan_discriminator(
    options: DcganDiscriminator, shape: ImageShape, codes: int
) -> Discriminator:
    return DcganD(options, shape, codes)

"""Residual networks: WGAN-GP (Gulrajani 2017), SNGAN (Miyato 2018), SAGAN (Zhang 2019).

Blocks as in Miyato 2018, figures 8 and 9: the shortcut of a block that changes size or width is a
1×1 convolution; doubling is by nearest neighbour, halving by average pooling.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from training.image_shape import ImageShape
from training.networks.attention import SelfAttention
from training.networks.base import Discriminator, DiscriminatorOutput, Generator
from training.networks.conditioning import (
    ConditionalLayer,
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
from training.options.architectures import ResnetDiscriminator, ResnetGenerator


class UpBlock(ConditionalLayer):
    """norm, relu, double, 3×3, norm, relu, 3×3; shortcut double, 1×1."""

    def __init__(
        self, options: ResnetGenerator, shape: ImageShape, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.before = ConditionalSequential(
            generator_norm(options.norm, options.condition, in_channels, shape)
        )
        self.between = ConditionalSequential(
            generator_norm(options.norm, options.condition, out_channels, shape)
        )
        self.first = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        inner = interpolate(relu(self.before(maps, labels)), scale_factor=2)
        inner = self.second(relu(self.between(self.first(inner), labels)))
        # a 1×1 convolution and upsampling commute: this order takes a quarter of the operations
        doubled: Tensor = inner + interpolate(self.shortcut(maps), scale_factor=2)
        return doubled


class ResnetG(Generator):
    def __init__(self, options: ResnetGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.entry = LatentInput(options, shape)
        self.z_dim, self.output = self.entry.z_dim, options.output
        steps = doublings(shape)
        maps = widths(options, steps)[::-1]
        heights = [shape.height >> step for step in range(steps - 1, -1, -1)]
        attention = attention_at(options, heights)
        self.start = (maps[0], shape.height >> steps, shape.width >> steps)
        self.first = nn.Linear(self.entry.size, maps[0] * self.start[1] * self.start[2])
        layers: list[nn.Module] = []
        below = maps[0]
        for height, above in zip(heights, maps, strict=True):
            layers += [UpBlock(options, shape, below, above), *noise_and_dropout(options)]
            if height == attention:
                layers.append(SelfAttention(above))
            below = above
        norm = [nn.BatchNorm2d(below)] if options.norm == "batch" else []
        layers += [*norm, nn.ReLU(inplace=True), nn.Conv2d(below, shape.channels, 3, 1, 1)]
        self.layers = ConditionalSequential(layers)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        values = self.first(self.entry(latents, labels)).unflatten(1, self.start)
        return to_image_range(self.layers(values, labels), self.output)


class DownBlock(nn.Module):
    """norm, relu, 3×3, norm, relu, 3×3, halve; shortcut 1×1, halve. `down`: whether to halve."""

    def __init__(
        self, options: ResnetDiscriminator, in_channels: int, out_channels: int, down: bool
    ) -> None:
        super().__init__()
        layer = options.norm == "layer"
        self.before = nn.GroupNorm(1, in_channels) if layer else nn.Identity()
        self.between = nn.GroupNorm(1, out_channels) if layer else nn.Identity()
        self.first = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1)
            if down or in_channels != out_channels
            else nn.Identity()
        )
        self.down = down

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.second(relu(self.between(self.first(relu(self.before(maps))))))
        if not self.down:
            return inner + self.shortcut(maps)  # type: ignore[no-any-return]
        # pooling first: it commutes with the 1×1 convolution
        return avg_pool2d(inner, 2) + self.shortcut(avg_pool2d(maps, 2))  # type: ignore[no-any-return]


class ImageBlock(nn.Module):
    """The first block: its input is the image, so there is no activation before its first
    convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        inner = avg_pool2d(self.second(relu(self.first(images))), 2)
        return inner + self.shortcut(avg_pool2d(images, 2))  # type: ignore[no-any-return]


class ResnetD(Discriminator):
    def __init__(self, options: ResnetDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.input = DiscriminatorInput(options, shape)
        steps, height = 1, shape.height // 2
        while height > options.smallest and steps < doublings(shape):
            steps, height = steps + 1, height // 2
        heights = [shape.height >> step for step in range(1, steps + 1)]
        attention = attention_at(options, heights)
        maps = widths(options, steps)
        layers: list[nn.Module] = []
        for number, above in enumerate(maps):
            if number == 0:
                layers.append(ImageBlock(self.input.channels, above))
            else:
                layers.append(DownBlock(options, maps[number - 1], above, down=True))
            if heights[number] == attention:
                layers.append(SelfAttention(above))
            layers += [Dropout(options.dropout)] if options.dropout else []
        for _ in range(options.plain):
            layers.append(DownBlock(options, maps[-1], maps[-1], down=False))
            layers += [Dropout(options.dropout)] if options.dropout else []
        self.hidden = nn.Sequential(*layers, nn.ReLU())
        self.head = Head(options, shape, maps[-1], (1, 1), codes)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        summed = self.hidden(self.input(images, labels)).sum(dim=(2, 3), keepdim=True)
        output: DiscriminatorOutput = self.head(summed, labels)
        return output


def resnet_generator(options: ResnetGenerator, shape: ImageShape) -> Generator:
    return ResnetG(options, shape)


def resnet_discriminator(
    options: ResnetDiscriminator, shape: ImageShape, codes: int
) -> Discriminator:
    return ResnetD(options, shape, codes)

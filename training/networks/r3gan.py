"""The networks of R3GAN (Huang et al. 2024, section 4): residual stages without normalisation.

A block is 1×1, grouped 3×3, 1×1 with an inverted bottleneck. It starts as the identity (fix-up,
Zhang et al. 2019) and its other weights have the variance of He et al. 2015, so no normalisation is
needed. Stages change the size by interpolation and the width by a 1×1 convolution. The generator
starts with a learned basis of small maps, the discriminator ends with one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput, Generator
from training.networks.conditioning import DiscriminatorInput, LatentInput
from training.networks.layers import Dropout, MinibatchStddev, noise_and_dropout, to_image_range
from training.networks.resampling import downsample2d, halve, setup_filter, upsample2d
from training.networks.sizes import doublings
from training.options.architectures import R3ganDiscriminator, R3ganGenerator, R3ganStageOptions

_SLOPE = 0.2
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))
_GROUP = 16
"""Channels per group of the 3×3 convolution in all published sizes."""


def scale_weight(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Weights N(0, gain² / fan-in) (He et al. 2015), biases 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """x + 1×1(act(grouped 3×3(act(1×1(x))))); act is a leaky ReLU after a bias.

    `blocks`, the number of blocks in the network, sets the variance of the weights: with k layers
    per block, fix-up scales all but the last by blocks^(−1 / (2k − 2)); the last starts at zero.
    """

    def __init__(self, maps: int, expansion: int, cardinality: int, blocks: int) -> None:
        super().__init__()
        inner, gain = maps * expansion, _GAIN * blocks**-0.25
        self.first = nn.Conv2d(maps, inner, 1)
        self.second = nn.Conv2d(inner, inner, 3, 1, 1, groups=cardinality)
        self.third = nn.Conv2d(inner, maps, 1, bias=False)
        for layer, scale in ((self.first, gain), (self.second, gain), (self.third, 0.0)):
            scale_weight(layer, scale)

    def forward(self, maps: Tensor) -> Tensor:
        inner = leaky_relu(self.first(maps), _SLOPE)
        inner = leaky_relu(self.second(inner), _SLOPE)
        blended: Tensor = maps + self.third(inner)
        return blended


class Resample(nn.Module):
    """Double (`up`) or halve the size, and change the width on the smaller maps.

    `filter` weights positions by (1, 3, 3, 1) along each side, with zero padding (bilinear
    interpolation); `box` repeats or averages 2×2 positions.
    """

    taps: Tensor

    def __init__(self, in_channels: int, out_channels: int, up: bool, kind: str) -> None:
        super().__init__()
        self.up, self.box = up, kind == "box"
        self.register_buffer("taps", setup_filter((1.0, 3.0, 3.0, 1.0)), persistent=False)
        self.width: nn.Module = nn.Identity()
        if in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            scale_weight(convolution)
            self.width = convolution

    def forward(self, maps: Tensor) -> Tensor:
        if self.up:
            return self._resize(self.width(maps))
        halved: Tensor = self.width(self._resize(maps))
        return halved

    def _resize(self, maps: Tensor) -> Tensor:
        if self.box:
            return interpolate(maps, scale_factor=2) if self.up else halve(maps)
        return (upsample2d if self.up else downsample2d)(maps, self.taps)


def stage_sizes(options: R3ganStageOptions, count: int) -> list[tuple[int, int, int]]:
    """Return (width, cardinality, blocks) of each of the `count` stages, from the image inwards.

    Raises:
        UserError: the options give another number of stages, or groups that do not divide a width.
    """
    lists: list[Sequence[int]] = []
    for name, values in (("widths", options.widths), ("blocks", options.blocks)):
        lists.append(_spread(name, values, count))
    inner = [width * options.expansion for width in lists[0]]
    cardinality: Sequence[int] = [max(1, channels // _GROUP) for channels in inner]
    if options.cardinality:
        cardinality = _spread("cardinality", options.cardinality, count)
    for channels, groups in zip(inner, cardinality, strict=True):
        if channels % groups:
            raise UserError(
                f"cardinality: {groups} groups do not divide {channels} channels (width times "
                "expansion); choose a divisor"
            )
    return list(zip(lists[0], cardinality, lists[1], strict=True))


def _spread(name: str, values: Sequence[int], count: int) -> Sequence[int]:
    if len(values) not in (1, count):
        raise UserError(
            f"{name}: {len(values)} stages given, this resolution has {count}; give one number, "
            f"or {count}"
        )
    return list(values) * (count if len(values) == 1 else 1)


class R3ganG(Generator):
    """A linear function of the latents times a learned basis of 4×4 maps; then stages up to the
    image."""

    def __init__(self, options: R3ganGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.entry = LatentInput(options, shape)
        if self.entry.embed is not None:
            nn.init.normal_(self.entry.embed.weight, 0.0, shape.classes**-0.5)
        self.z_dim, self.output = self.entry.z_dim, options.output
        steps = doublings(shape)
        stages = stage_sizes(options, steps + 1)[::-1]
        total = sum(blocks for _, _, blocks in stages)
        below = stages[0][0]
        self.first = nn.Linear(self.entry.size, below, bias=False)
        scale_weight(self.first)
        self.basis = nn.Parameter(torch.randn(below, shape.height >> steps, shape.width >> steps))
        layers: list[nn.Module] = []
        for number, (width, cardinality, blocks) in enumerate(stages):
            if number:
                layers.append(Resample(below, width, True, options.resample))
            for _ in range(blocks):
                layers.append(ResidualBlock(width, options.expansion, cardinality, total))
                layers += noise_and_dropout(options)
            below = width
        last = nn.Conv2d(below, shape.channels, 1, bias=False)
        scale_weight(last)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        shares = self.first(self.entry(latents, labels))[:, :, None, None]
        maps = self.basis.to(shares.dtype) * shares
        return to_image_range(self.layers(maps), self.output)


class BasisHead(nn.Module):
    """Features (n, maps, *size) → a `DiscriminatorOutput` through one filter per map, as large as
    the map.

    With `projection`, the filtered maps are projected to the dimension of the label's embedding,
    and the logit is their product (Huang et al. 2024): there is no logit without a label.
    """

    def __init__(
        self,
        options: R3ganDiscriminator,
        shape: ImageShape,
        maps: int,
        size: tuple[int, int],
        codes: int,
    ) -> None:
        super().__init__()
        group = options.minibatch_stddev
        self.stddev = MinibatchStddev(group) if group else nn.Identity()
        filtered = maps + bool(group)
        self.basis = nn.Conv2d(filtered, filtered, size, groups=filtered, bias=False)
        projected = options.condition == "projection"
        self.output = nn.Linear(filtered, maps if projected else 1, bias=False)
        scale_weight(self.basis)
        scale_weight(self.output)
        self.projection = self.classifier = self.coder = None
        if projected:
            self.projection = nn.Embedding(shape.classes, maps)
            nn.init.normal_(self.projection.weight, 0.0, (shape.classes * maps) ** -0.5)
        if options.classifier:
            self.classifier = nn.Linear(filtered, shape.classes)
            scale_weight(self.classifier)
        if codes:
            self.coder = nn.Linear(filtered, codes)
            scale_weight(self.coder)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        # a product and a sum: a convolution would run one group per channel
        filtered = (self.stddev(features) * self.basis.weight[:, 0]).sum(dim=(2, 3))
        logits = self.output(filtered)
        if self.projection is not None:
            logits = logits * self.projection(labels).to(logits.dtype)
        classes = None if self.classifier is None else self.classifier(filtered)
        codes = None if self.coder is None else self.coder(filtered)
        return DiscriminatorOutput(logits.sum(dim=1), features, classes, codes)


class R3ganD(Discriminator):
    """The mirror image of the generator."""

    def __init__(self, options: R3ganDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.input = DiscriminatorInput(options, shape)
        steps = doublings(shape)
        stages = stage_sizes(options, steps + 1)
        total = sum(blocks for _, _, blocks in stages)
        below = stages[0][0]
        first = nn.Conv2d(self.input.channels, below, 1, bias=False)
        scale_weight(first)
        layers: list[nn.Module] = [first]
        for number, (width, cardinality, blocks) in enumerate(stages):
            if number:
                layers.append(Resample(below, width, False, options.resample))
            for _ in range(blocks):
                layers.append(ResidualBlock(width, options.expansion, cardinality, total))
                layers += [Dropout(options.dropout)] if options.dropout else []
            below = width
        self.hidden = nn.Sequential(*layers)
        end = (shape.height >> steps, shape.width >> steps)
        self.alone = not (options.minibatch_stddev or options.dropout)
        self.head = BasisHead(options, shape, below, end, codes)

    def accepts_interleaved(self, count: int) -> bool:  # noqa: ARG002 (an answer for every count)
        return self.alone

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        output: DiscriminatorOutput = self.head(self.hidden(self.input(images, labels)), labels)
        return output


def r3gan_generator(options: R3ganGenerator, shape: ImageShape) -> Generator:
    return R3ganG(options, shape)


def r3gan_discriminator(
    options: R3ganDiscriminator, shape: ImageShape, codes: int
) -> Discriminator:
    return R3ganD(options, shape, codes)

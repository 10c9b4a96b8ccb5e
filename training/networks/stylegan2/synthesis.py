"""The synthesis network, and the complete generator (Karras 2020a, section 2 and figure 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from training.image_shape import ImageShape
from training.networks.resampling import setup_filter, upsample2d
from training.networks.sizes import doublings
from training.networks.stylegan2.adain import AdainLayer
from training.networks.stylegan2.convolution import Conv2dLayer
from training.networks.stylegan2.generator import StyledGenerator
from training.networks.stylegan2.modulation import SynthesisLayer, ToRGBLayer
from training.options.architectures import StyleGan2Generator, StyleGan2WidthOptions

HALF = math.sqrt(0.5)
"""Keeps the variance of a sum of two."""


def sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Return heights and widths of the blocks, from the smallest to the image's.

    Raises:
        UserError: the size is not 4 to 7 px doubled.
    """
    count = doublings(shape)
    return [(shape.height >> n, shape.width >> n) for n in range(count, -1, -1)]


def channels_at(options: StyleGan2WidthOptions, size: tuple[int, int]) -> int:
    """Return the channels of a block with maps of this height and width."""
    return max(1, min(options.channel_base // min(size), options.channel_max))


class SynthesisBlock(nn.Module):
    """All layers of one size: the first block starts at a learned constant, the others double the
    size.

    With AdaIN (StyleGAN) the constant has a style too.
    """

    resample_filter: Tensor

    def __init__(
        self, options: StyleGan2Generator, in_channels: int, size: tuple[int, int], channels: int,
        last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.options, outside = options, channels_at(options, size)
        layer = AdainLayer if options.style == "adain" else SynthesisLayer
        self.register_buffer("resample_filter", setup_filter(options.resample_filter))
        self.conv0: nn.Module | None = None
        self.const: nn.Parameter | None = None
        if in_channels:
            self.conv0 = layer(options, in_channels, outside, size, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outside, *size))
            if options.style == "adain":
                self.conv0 = AdainLayer(options, 0, outside, size)
        self.conv1 = layer(options, outside, outside, size)
        self.torgb: nn.Module | None = None
        if last or options.architecture == "skip":
            if options.style == "adain":
                self.torgb = Conv2dLayer(options, outside, channels, 1, active=False)
            else:
                self.torgb = ToRGBLayer(options, outside, channels)
        self.skip: nn.Module | None = None
        if in_channels and options.architecture == "resnet":
            self.skip = Conv2dLayer(
                options, in_channels, outside, 1, resize=2, bias=False, active=False
            )
        self.num_conv = 1 + (self.conv0 is not None)

    def forward(
        self, maps: Tensor | None, image: Tensor | None, ws: list[Tensor], noise: str
    ) -> tuple[Tensor, Tensor | None]:
        """`ws` are those of the layers of this block; the last is for the image layer."""
        shortcut = None if self.skip is None or maps is None else self.skip(maps, gain=HALF)
        gain = 1.0 if shortcut is None else HALF
        if maps is None:
            assert self.const is not None
            maps = self.const[None].expand(ws[0].shape[0], -1, -1, -1)
            kind = maps.device.type
            if kind != "meta" and torch.is_autocast_enabled(kind):
                maps = maps.to(torch.get_autocast_dtype(kind))
        if self.conv0 is not None:
            maps = self.conv0(maps, ws[0], noise)
        maps = self.conv1(maps, ws[self.num_conv - 1], noise, gain)
        if shortcut is not None:
            maps = shortcut + maps
        assert maps is not None
        if image is not None:
            image = self.larger(image)
        if self.torgb is not None:
            adain = self.options.style == "adain"
            added = self.torgb(maps) if adain else self.torgb(maps, ws[-1])
            added = added.to(torch.promote_types(added.dtype, torch.float32))
            image = added if image is None else image + added
        return maps, image

    def larger(self, image: Tensor) -> Tensor:
        """Return the sum of the image so far, at the size of this block."""
        if self.options.resample == "economical":
            return interpolate(image, scale_factor=2, mode="bilinear")
        return upsample2d(image, self.resample_filter)


class SynthesisNetwork(nn.Module):
    """Styles float (n, num_ws, w_dim) → images float32 (n, channels, height, width)."""

    def __init__(self, options: StyleGan2Generator, shape: ImageShape) -> None:
        super().__init__()
        self.noise_mode = options.noise_mode
        self.sizes, inside = sizes(shape), 0
        for number, size in enumerate(self.sizes):
            last = number == len(self.sizes) - 1
            block = SynthesisBlock(options, inside, size, shape.channels, last)
            setattr(self, self.name(size), block)
            inside = channels_at(options, size)
        blocks = self.blocks()
        styled_image = options.style != "adain"
        self.num_ws = sum(block.num_conv for block in blocks) + styled_image

    @staticmethod
    def name(size: tuple[int, int]) -> str:
        """Return the block's name: its smaller side."""
        return f"b{min(size)}"

    def blocks(self) -> list[SynthesisBlock]:
        """From the smallest block to that of the image."""
        return [getattr(self, self.name(size)) for size in self.sizes]

    def forward(self, ws: Tensor, noise: str | None = None) -> Tensor:
        """`noise`: `random`, `const` or `none`; None: random while training, else constant."""
        if noise is None:
            noise = self.noise_mode if self.training else "const"
        maps: Tensor | None = None
        image: Tensor | None = None
        each, start = ws.unbind(dim=1), 0
        for block in self.blocks():
            taken = list(each[start : start + block.num_conv + 1])
            maps, image = block(maps, image, taken, noise)
            start += block.num_conv
        assert image is not None
        return image


class StyleGan2G(StyledGenerator):
    """The generator: `mapping`, then `synthesis`, with constant noise in evaluation."""

    synthesis: SynthesisNetwork

    def __init__(self, options: StyleGan2Generator, shape: ImageShape) -> None:
        synthesis = SynthesisNetwork(options, shape)
        super().__init__(options, shape, synthesis, synthesis.num_ws)

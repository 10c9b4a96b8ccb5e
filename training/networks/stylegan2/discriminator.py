"""The residual discriminator of StyleGAN2 (Karras 2020a, figure 7)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput
from training.networks.conditioning import require_labels
from training.networks.layers import MinibatchStddev
from training.networks.resampling import downsample2d, halve, setup_filter
from training.networks.stylegan2.convolution import Conv2dLayer
from training.networks.stylegan2.equalized import FullyConnectedLayer
from training.networks.stylegan2.mapping import MappingNetwork
from training.networks.stylegan2.synthesis import HALF, channels_at, sizes
from training.options.architectures import StyleGan2Discriminator


class DiscriminatorBlock(nn.Module):
    """Halves the maps; the first block, and every block of a `skip` network, has the image as
    input."""

    resample_filter: Tensor

    def __init__(
        self, options: StyleGan2Discriminator, size: tuple[int, int], channels: int, first: bool
    ) -> None:
        super().__init__()
        self.options = options
        inside = channels_at(options, size)
        outside = channels_at(options, (size[0] // 2, size[1] // 2))
        self.register_buffer("resample_filter", setup_filter(options.resample_filter))
        self.fromrgb: nn.Module | None = None
        if first or options.architecture == "skip":
            self.fromrgb = Conv2dLayer(options, channels, inside, 1)
        self.conv0 = Conv2dLayer(options, inside, inside, 3)
        self.conv1 = Conv2dLayer(options, inside, outside, 3, resize=-2)
        self.skip: nn.Module | None = None
        if options.architecture == "resnet":
            self.skip = Conv2dLayer(
                options, inside, outside, 1, resize=-2, bias=False, active=False
            )

    def forward(self, maps: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.fromrgb is not None:
            seen: Tensor = self.fromrgb(image)
            maps = seen if maps is None else maps + seen
            image = self.smaller(image) if self.options.architecture == "skip" else None
        assert maps is not None
        if self.skip is None:
            return self.conv1(self.conv0(maps)), image
        shortcut: Tensor = self.skip(maps, gain=HALF)
        return shortcut.add_(self.conv1(self.conv0(maps), gain=HALF)), image

    def smaller(self, image: Tensor | None) -> Tensor:
        assert image is not None
        if self.options.resample == "economical":
            return halve(image)
        return downsample2d(image, self.resample_filter)


class DiscriminatorEpilogue(nn.Module):
    """The smallest maps (n, c, h, w) to features (n, c) and `out_channels` numbers.

    Raises:
        UserError: `mbstd_channels` does not divide c.
    """

    def __init__(
        self,
        options: StyleGan2Discriminator,
        size: tuple[int, int],
        channels: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        width, more = channels_at(options, size), options.mbstd_channels
        if more and width % more:
            raise UserError(
                f"discriminator.mbstd_channels: {more} does not divide the {width} channels of the "
                "last convolution's maps"
            )
        self.fromrgb: nn.Module | None = None
        if options.architecture == "skip":
            self.fromrgb = Conv2dLayer(options, channels, width, 1)
        self.mbstd = MinibatchStddev(options.mbstd_group_size, more) if more else nn.Identity()
        self.conv = Conv2dLayer(options, width + more, width, 3)
        self.fc = FullyConnectedLayer(width * size[0] * size[1], width, active=True)
        self.out = FullyConnectedLayer(width, out_channels)

    def forward(self, maps: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fromrgb is not None:
            maps = maps + self.fromrgb(image)
        maps = self.conv(self.mbstd(maps))
        features: Tensor = self.fc(maps.flatten(1))
        return features, self.out(features)


class StyleGan2D(Discriminator):
    """The discriminator; with labels, its logit is the projection of the mapped label on the
    last layer (Miyato & Koyama 2018; Karras 2020b, appendix C)."""

    def __init__(self, options: StyleGan2Discriminator, shape: ImageShape) -> None:
        super().__init__()
        downwards = sizes(shape)[::-1]
        width = channels_at(options, downwards[-1])
        self.mapping: MappingNetwork | None = None
        if options.condition != "none":
            require_labels("discriminator.condition", shape)
            self.mapping = MappingNetwork(
                0, shape.classes, width, options.mapping_layers, options.mapping_lr_multiplier
            )
        self.names: list[str] = []
        for number, size in enumerate(downwards):
            self.names.append(f"b{min(size)}")
            block: nn.Module
            if number < len(downwards) - 1:
                block = DiscriminatorBlock(options, size, shape.channels, number == 0)
            else:
                outside = width if self.mapping is not None else 1
                block = DiscriminatorEpilogue(options, size, shape.channels, outside)
            setattr(self, self.names[-1], block)
        self.group = options.mbstd_group_size if options.mbstd_channels else 1
        self.scale = 1 / math.sqrt(width)

    @property
    def hidden(self) -> nn.Sequential:  # type: ignore[override]
        """The blocks from the image to the features."""
        return nn.Sequential(*(getattr(self, name) for name in self.names))

    def accepts_interleaved(self, count: int) -> bool:
        """Sample i is in group i mod (n / group): interleaved real and fake images share no
        group."""
        return count % self.group == 0

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        maps: Tensor | None = None
        image: Tensor | None = images
        for name in self.names[:-1]:
            maps, image = getattr(self, name)(maps, image)
        features, answers = getattr(self, self.names[-1])(maps, image)
        if self.mapping is not None:
            mapped = self.mapping(None, labels)
            answers = (answers.to(mapped.dtype) * mapped).sum(dim=1, keepdim=True) * self.scale
        return DiscriminatorOutput(answers.flatten(), features)

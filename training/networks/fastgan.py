"""FastGAN (Liu et al. 2021), for hundreds of images: any size s·2^k up to 1024 px.

In the generator, channels of large maps are weighted by maps a sixteenth as large (skip-layer
excitation, eq. 1). The discriminator classifies patches and reconstructs images from its own maps,
so that these preserve the content of the images (section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, l1_loss

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput, Generator
from training.networks.conditioning import (
    DiscriminatorInput,
    LatentInput,
)
from training.networks.fastgan_layers import (
    Decoder,
    DownBlock,
    Glu,
    SkipLayerExcitation,
    UpBlock,
    crop_quarter,
)
from training.networks.frozen import perceptual_distance
from training.networks.heads import Head
from training.networks.layers import (
    apply_spectral_norm,
    init_weights,
    noise_and_dropout,
    to_image_range,
)  # fmt: skip
from training.networks.sizes import doublings
from training.options.efficient import FastganDiscriminator, FastganGenerator

_G_MAPS = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)
"""Channels of the generator after each doubling, in units of its width (4 px to 1024 px)."""
_D_MAPS = (8, 4, 2, 1, 0.5, 0.25, 0.125)
"""Channels of the discriminator at 8 px, 16 px … 512 px, in units of its width."""
_BRIDGE = 4
"""Number of doublings that an excitation of the generator skips; in the discriminator, three."""
_FIRST_EXCITED = 4
_LAST_EXCITED = 7
_DECODED = 128
"""Maximum side of a reconstructed image in pixels."""
_FULL_STEPS = 5
"""Number of halvings with excitations; larger images are first reduced by strided convolutions."""


def map_counts(multipliers: tuple[float, ...], width: int, count: int) -> list[int]:
    """Return the first `count` multipliers as numbers of channels.

    Raises:
        UserError: the image is larger than the network supports.
    """
    if count > len(multipliers):
        raise UserError("resolution: FastGAN supports at most 1024 px")
    return [max(1, int(width * multiplier)) for multiplier in multipliers[:count]]


class FastganG(Generator):
    def __init__(self, options: FastganGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.entry = LatentInput(options, shape)
        self.z_dim, self.output = self.entry.z_dim, options.output
        steps = doublings(shape)
        maps = map_counts(_G_MAPS, options.width, steps + 1)
        start = (shape.height >> steps, shape.width >> steps)
        self.first = nn.Sequential(
            nn.ConvTranspose2d(self.entry.size, maps[0] * 2, start, bias=False),
            nn.BatchNorm2d(maps[0] * 2),
            Glu(),
        )
        self.blocks = nn.ModuleList(
            UpBlock(
                options,
                shape,
                (maps[step - 1], maps[step]),
                (start[0] << step, start[1] << step),
                bool(step % 2) and not options.lite,
            )
            for step in range(1, steps + 1)
        )
        self.disturbed = nn.ModuleList(
            nn.Sequential(*noise_and_dropout(options)) for _ in range(steps)
        )  # fmt: skip
        self.excitations = nn.ModuleDict(
            {
                str(step): SkipLayerExcitation(maps[step - _BRIDGE], maps[step])
                for step in range(_FIRST_EXCITED, min(steps, _LAST_EXCITED) + 1)
            }
        )
        self.last = nn.Conv2d(maps[-1], shape.channels, 3, 1, 1, bias=False)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        maps = [self.first(self.entry(latents, labels)[:, :, None, None])]
        for step, (block, disturb) in enumerate(
            zip(self.blocks, self.disturbed, strict=True), start=1
        ):
            above = block(maps[-1], labels)
            if str(step) in self.excitations:
                above = self.excitations[str(step)](maps[step - _BRIDGE], above)
            maps.append(disturb(above))
        return to_image_range(self.last(maps[-1]), self.output)


class PatchHead(Head):
    """Like `Head`, with one logit per patch of 4×4 positions: 1×1 to twice the channels, norm,
    leaky ReLU, 4×4."""

    def __init__(
        self,
        options: FastganDiscriminator,
        shape: ImageShape,
        maps: int,
        size: tuple[int, int],
        codes: int,
    ) -> None:
        super().__init__(options, shape, maps, size, codes, bias=False)
        inner = maps * 2
        self.output = nn.Sequential(  # type: ignore[assignment]
            nn.Conv2d(maps + bool(options.minibatch_stddev), inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(inner, 1, min(4, *size), bias=False),
        )


def stem(channels: int, maps: list[int]) -> nn.Sequential:
    """From the image to its first maps: 3×3 at full size, or 4×4 stride 2 once or twice, with
    the numbers of channels in `maps` (the first has no norm)."""
    if len(maps) == 1:
        return nn.Sequential(
            nn.Conv2d(channels, maps[0], 3, 1, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)
        )
    layers: list[nn.Module] = []
    for number, above in enumerate(maps[1:]):
        layers.append(nn.Conv2d(channels, above, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(above)] if number else []
        layers.append(nn.LeakyReLU(0.2, inplace=True))
        channels = above
    return nn.Sequential(*layers)


class FastganD(Discriminator):
    """From the image down to maps of about 8×8 positions.

    Maps are excited by those eight times as large. The whole image is reconstructed from the last
    maps, and a random quarter of it from the same quarter of the maps before them.
    """

    def __init__(self, options: FastganDiscriminator, shape: ImageShape, codes: int) -> None:
        super().__init__()
        self.input = DiscriminatorInput(options, shape)
        steps = doublings(shape) - 1
        if steps < 1:
            raise UserError("resolution: FastGAN's discriminator needs at least 16 px")
        size = (shape.height >> steps, shape.width >> steps)
        maps = map_counts((*_D_MAPS, 0.125), options.width, steps + 1)
        strided = max(0, steps - _FULL_STEPS)
        steps -= strided
        into = stem(self.input.channels, maps[: steps - 1 : -1])
        maps = maps[steps::-1]
        blocks = [DownBlock(maps[n], maps[n + 1], options.dropout) for n in range(steps)]
        self.hidden = nn.Sequential(into, *blocks)
        self.excitations = nn.ModuleDict(
            {str(n): SkipLayerExcitation(maps[n - 3], maps[n]) for n in range(3, steps + 1)}
        )
        self.head = PatchHead(options, shape, maps[-1], size, codes)
        self.reconstruction, self.channels = options.reconstruction, shape.channels
        self.decoders = nn.ModuleDict()
        if options.reconstruction != "none":
            channels = shape.channels * options.packing
            most = (_DECODED // min(size)).bit_length() - 1
            ups = steps + strided
            self.decoders["whole"] = Decoder(maps[-1], channels, min(ups, most), options.width)
            self.decoders["part"] = Decoder(maps[-2], channels, min(ups - 1, most), options.width)
        init_weights(self, options.init)
        if options.spectral:
            apply_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        maps = [self.hidden[0](self.input(images, labels))]
        for number, block in enumerate(list(self.hidden)[1:], start=1):
            above = block(maps[-1])
            if str(number) in self.excitations:
                above = self.excitations[str(number)](maps[number - 3], above)
            maps.append(above)
        output: DiscriminatorOutput = self.head(maps[-1], labels)
        return output._replace(decoder_inputs=(images, *maps[-2:])) if self.decoders else output

    def reconstruct(self, output: DiscriminatorOutput) -> Tensor:
        """Return the sum of both distances: of the whole image, and of a random quarter."""
        images, before, last = output.decoder_inputs
        row, column = torch.randint(0, 2, (2,)).tolist()
        whole = self.decoders["whole"](last)
        part = self.decoders["part"](crop_quarter(before, row, column))
        return self._distance(whole, images) + self._distance(
            part, crop_quarter(images, row, column)
        )

    def _distance(self, decoded: Tensor, images: Tensor) -> Tensor:
        wanted = adaptive_avg_pool2d(images.detach().float(), (decoded.shape[2], decoded.shape[3]))
        if self.reconstruction == "l1":
            return l1_loss(decoded.float(), wanted)
        side = decoded.shape[2:]
        single = (one.reshape(-1, self.channels, *side) for one in (decoded, wanted))
        return perceptual_distance(*single)


def fastgan_generator(options: FastganGenerator, shape: ImageShape) -> Generator:
    return FastganG(options, shape)


def fastgan_discriminator(
    options: FastganDiscriminator, shape: ImageShape, codes: int
) -> Discriminator:
    return FastganD(options, shape, codes)

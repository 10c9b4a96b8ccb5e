"""PatchGAN: a discriminator of overlapping patches (Isola 2017; Li & Wand 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput
from training.networks.layers import init_weights
from training.options.translation import PatchganDiscriminator

_MOST = 8
"""Maximum number of channels in units of `width`."""


class PatchganD(Discriminator):
    """Each of the k logits (n, k) classifies a patch of `receptive_field` px per side."""

    def __init__(self, options: PatchganDiscriminator, shape: ImageShape) -> None:
        super().__init__()
        if min(shape.height, shape.width) >> options.layers < 3:  # the last two layers take 2 px
            raise UserError(
                f"discriminator.layers: {options.layers} halvings of {shape.width}×{shape.height} "
                "px leave no map for two more layers; use fewer"
            )
        layers: list[nn.Module] = []
        below = shape.channels
        for number in range(options.layers + 1):
            above = options.width * min(2**number, _MOST)
            layers.append(nn.Conv2d(below, above, 4, 2 if number < options.layers else 1, 1))
            if number and options.norm == "instance":
                layers.append(nn.InstanceNorm2d(above))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            below = above
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Conv2d(below, 1, 4, 1, 1)
        init_weights(self, options.init)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:  # noqa: ARG002
        features = self.hidden(images)
        return DiscriminatorOutput(self.output(features).flatten(1), features)

    def accepts_interleaved(self, count: int) -> bool:  # noqa: ARG002 (each sample by itself)
        """See `Discriminator`."""
        return True


def receptive_field(layers: int) -> int:
    """Return the side in pixels of the patch that a logit depends on."""
    side = 1
    for stride in (1, 1, *[2] * layers):  # from the logit to the image, convolutions of size 4
        side = (side - 1) * stride + 4
    return side


def patchgan_discriminator(
    options: PatchganDiscriminator, shape: ImageShape, _codes: int
) -> Discriminator:
    return PatchganD(options, shape)

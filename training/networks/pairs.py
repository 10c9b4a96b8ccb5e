"""Discriminators of pairs: an image and a latent, or two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.base import Discriminator, DiscriminatorOutput


class PairHead(nn.Module):
    """Features (n, …) of images and latents (n, z_dim) → what the pair adds to the logit, (n,).

    A layer for each part, their concatenation, and `widths` hidden layers (Dumoulin et al. 2017,
    figure 1: D(x, z)).
    """

    def __init__(self, features: int, z_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.image = nn.Linear(features, widths[0])
        self.latent = nn.Linear(z_dim, widths[0])
        layers: list[nn.Module] = [nn.LeakyReLU(0.2)]
        for below, above in zip((2 * widths[0], *widths[1:]), (*widths[1:], 1), strict=True):
            layers += [nn.Linear(below, above), nn.LeakyReLU(0.2)]
        self.joint = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        parts = [self.image(features.flatten(1)), self.latent(latents)]
        added: Tensor = self.joint(torch.cat(parts, dim=1))
        return added.flatten()


class PairDiscriminator(nn.Module):
    """Images and latents (n, z_dim) → a `DiscriminatorOutput` of the pairs: the logit is that of
    the image plus that of the `head`. It shares the networks, and is never saved."""

    def __init__(self, discriminator: Discriminator, head: PairHead) -> None:
        super().__init__()
        self.discriminator, self.head = discriminator, head

    @property
    def joint_batch(self) -> bool:
        """See `Discriminator.joint_batch`."""
        return self.discriminator.joint_batch

    def accepts_interleaved(self, count: int) -> bool:
        """See `Discriminator.accepts_interleaved`."""
        return self.discriminator.accepts_interleaved(count)

    def forward(self, images: Tensor, latents: Tensor) -> DiscriminatorOutput:
        output: DiscriminatorOutput = self.discriminator(images, latents)
        added: Tensor = self.head(output.features, latents)
        logits = output.logits + (added if output.logits.ndim == 1 else added[:, None])
        return output._replace(logits=logits)


class TwoDiscriminators(nn.Module):
    """Two images, one beside the other in the channels (n, 2·c, height, width) → the outputs of a
    discriminator for each, as one `DiscriminatorOutput`: the logits (n, k₁ + k₂) of both, and their
    features in one row. It shares the networks, and is never saved."""

    joint_batch = False

    def __init__(self, first: Discriminator, second: Discriminator) -> None:
        super().__init__()
        self.first, self.second = first, second

    def accepts_interleaved(self, count: int) -> bool:
        """See `Discriminator.accepts_interleaved`."""
        return self.first.accepts_interleaved(count) and self.second.accepts_interleaved(count)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        outputs = [
            network(half, labels)
            for network, half in zip((self.first, self.second), split_pairs(images), strict=True)
        ]
        logits = torch.cat([one.logits.flatten(1) if one.logits.ndim > 1 else one.logits[:, None]
                            for one in outputs], dim=1)  # fmt: skip
        features = torch.cat([one.features.flatten(1) for one in outputs], dim=1)
        return DiscriminatorOutput(logits, features)


def split_pairs(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second images of pairs: (n, 2·c, h, w) → (n, c, h, w) each."""
    first, second = pairs.chunk(2, dim=1)
    return first, second


@torch.no_grad()
def feature_count(discriminator: Discriminator, shape: ImageShape) -> int:
    """Return how many features the discriminator has for an image; its weights do not change."""
    weight = next(discriminator.parameters())
    image = weight.new_zeros((1, shape.channels, shape.height, shape.width))
    was_training = discriminator.training
    output: DiscriminatorOutput = discriminator.eval()(
        image, torch.zeros(1, dtype=torch.int64, device=weight.device)
    )
    discriminator.train(was_training)
    return output.features.numel()

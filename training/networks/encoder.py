"""An encoder: from images to latents; and a classifier with the same layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.dcgan import halving_block, halving_layers
from training.networks.layers import init_weights
from training.options.methods import EncoderOptions


class Posterior(NamedTuple):
    """The Gaussian q(z | x) of each of n images: `mean` float32 (n, z_dim), and `log_variance`
    (n, z_dim), or None if it is a point."""

    mean: Tensor
    log_variance: Tensor | None = None

    def sample(self, random: torch.Generator) -> Tensor:
        """Draw latents (n, z_dim): mean + standard deviation · noise, so that gradients reach both
        (Kingma & Welling 2014, section 2.4)."""
        if self.log_variance is None:
            return self.mean
        noise = torch.empty_like(self.mean).normal_(generator=random)
        return self.mean + (self.log_variance / 2).exp() * noise


class Encoder(nn.Module):
    """Images (n, channels, height, width) in [-1, 1] → their `Posterior`."""

    def __init__(
        self, options: EncoderOptions, shape: ImageShape, z_dim: int, stochastic: bool
    ) -> None:
        super().__init__()
        layers, maps, end = halving_layers(
            options, shape, shape.channels, halving_block(options.norm)
        )
        self.hidden = nn.Sequential(*layers)
        self.mean = nn.Conv2d(maps, z_dim, end)
        self.log_variance = nn.Conv2d(maps, z_dim, end) if stochastic else None
        init_weights(self, options.init)

    def forward(self, images: Tensor) -> Posterior:
        hidden = self.hidden(images)
        mean = self.mean(hidden).flatten(1).float()
        if self.log_variance is None:
            return Posterior(mean)
        return Posterior(mean, self.log_variance(hidden).flatten(1).float())


class Classifier(Encoder):
    """Images (n, channels, height, width) in [-1, 1] → logits float32 (n, classes)."""

    def __init__(self, options: EncoderOptions, shape: ImageShape) -> None:
        super().__init__(options, shape, shape.classes, stochastic=False)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images).mean

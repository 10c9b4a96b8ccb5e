"""The latent space of a generator, as the latent tools see it: its images are controlled in W.

A style generator maps z to one w per layer (Karras et al. 2019). Without a mapping, z itself takes
the role of w, with one layer, so every tool works with every generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.grid import Pixels
from training.networks import Generator
from training.transparency import limit_colours

BATCH = 64


@runtime_checkable
class StyleGenerator(Protocol):
    """A generator in two parts.

    `mapping`: latents (n, z_dim) and labels int64 (n,) → ws (n, num_ws, w_dim). `synthesis`: ws →
    images in [-1, 1]. `w_avg` (w_dim,) is the running mean of w.
    """

    num_ws: int
    w_avg: Tensor

    def mapping(self, latents: Tensor, labels: Tensor) -> Tensor: ...
    def synthesis(self, ws: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LatentSpace:
    """A generator with its latent space W. `latent` is the distribution of z, `classes` the
    number of classes, `w_avg` (w_dim,) the target of truncation."""

    generator: Generator
    latent: str
    classes: int
    num_ws: int
    w_dim: int
    w_avg: Tensor
    encoder: nn.Module | None = None
    """Images → the `Posterior` of their latents, if it was trained with the generator."""

    @property
    def has_mapping(self) -> bool:
        """Whether the generator has a mapping, so that each layer can have its own w."""
        return isinstance(self.generator, StyleGenerator)

    @property
    def device(self) -> torch.device:
        return self.w_avg.device

    def map(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Map latents (n, z_dim) and labels (n,) → ws (n, num_ws, w_dim)."""
        if isinstance(self.generator, StyleGenerator):
            return self.generator.mapping(latents, labels)
        return latents[:, None]

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the ws (n, num_ws, w_dim) of images (n, channels, height, width) in [-1, 1], by
        the mean of the encoder's distribution."""
        assert self.encoder is not None
        with torch.no_grad():
            return self.map(self.encoder(images).mean, labels)

    def synthesize(self, ws: Tensor, labels: Tensor) -> Tensor:
        """ws (n, num_ws, w_dim) → images float32 (n, channels, height, width) in [-1, 1]; labels
        have an effect only without a mapping."""
        styled = isinstance(self.generator, StyleGenerator)
        images: Tensor = (
            self.generator.synthesis(ws) if styled else self.generator(ws[:, 0], labels)
        )
        return limit_colours(images.float())

    def truncate(self, ws: Tensor, psi: float | Tensor) -> Tensor:
        """mean + psi · (w − mean) (Karras et al. 2019, appendix B); 1 changes nothing. `psi` is
        one number, or (n, 1, 1)."""
        if not isinstance(psi, Tensor) and psi == 1:
            return ws
        return self.w_avg + psi * (ws - self.w_avg)

    @torch.no_grad()
    def generate(self, ws: Tensor, labels: Tensor, batch: int = BATCH) -> Pixels:
        """Generate images uint8 (n, height, width, channels)."""
        parts = []
        for some, which in zip(torch.split(ws, batch), torch.split(labels, batch), strict=True):
            images = self.synthesize(some, which).clamp(-1, 1)
            parts.append(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
        pixels: Pixels = torch.cat(parts).numpy()
        return pixels

    def at(self, generator: Generator) -> LatentSpace:
        """Return the same space for another copy of the generator."""
        return replace(self, generator=generator)


def build_latent_space(
    generator: Generator, latent: str, classes: int, encoder: nn.Module | None = None
) -> LatentSpace:
    """Build the latent space of a generator in evaluation mode, and of its encoder, if any."""
    if isinstance(generator, StyleGenerator):
        mean, count = generator.w_avg.detach().float(), generator.num_ws
    else:
        device = next(generator.parameters()).device
        mean, count = torch.zeros(generator.z_dim, device=device), 1
    return LatentSpace(generator, latent, classes, count, len(mean), mean, encoder)


def style_weights(space: LatentSpace) -> list[Tensor]:
    """Return the first weights that are applied to w, one entry per layer of ws: the weights
    (out, w_dim) of the convolutions' style affines in order, or, without a mapping, those of the
    first layer."""
    if space.has_mapping:
        return [
            layer.weight.detach().float()
            for name, layer in space.generator.named_modules()
            if name.endswith(".affine") and "torgb" not in name
        ]
    kinds = nn.Linear | nn.ConvTranspose2d | nn.Conv2d
    first = next(layer for layer in space.generator.modules() if isinstance(layer, kinds))
    weight = first.weight.detach().float()
    if isinstance(first, nn.ConvTranspose2d):  # its weight is (in, out, height, width)
        weight = weight.transpose(0, 1)
    inputs = weight.movedim(1, -1).reshape(-1, weight.shape[1])
    return [inputs[:, : space.w_dim]]  # the rest are embedded labels

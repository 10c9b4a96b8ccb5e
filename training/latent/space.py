"""What the tools on latents know of a generator: the space W that its pictures are steered in.

A style generator maps z to one w a layer (Karras et al. 2019). Where there is no mapping, z itself
plays the part of w, with one layer: so every tool works on every generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.grid import Pixels
from training.networks import Generator

BATCH = 64


@runtime_checkable
class StyleGenerator(Protocol):
    """A generator in two halves.

    `mapping`: latents (n, z_dim) and labels int64 (n,) → ws (n, num_ws, w_dim). `synthesis`: ws →
    images in [-1, 1]. `w_avg` (w_dim,) is the running mean of w.
    """

    num_ws: int
    w_avg: Tensor

    def mapping(self, latents: Tensor, labels: Tensor) -> Tensor: ...
    def synthesis(self, ws: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LatentSpace:
    """A generator seen through W. `latent` says how its z are drawn, `classes` counts its labels,
    `mean` (w_dim,) is what truncation goes to."""

    generator: Generator
    latent: str
    classes: int
    num_ws: int
    w_dim: int
    w_avg: Tensor

    @property
    def has_mapping(self) -> bool:
        """Whether there is a mapping, so that layers can have a w each."""
        return isinstance(self.generator, StyleGenerator)

    @property
    def device(self) -> torch.device:
        return self.w_avg.device

    def map(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (n, z_dim) and labels (n,) → ws (n, num_ws, w_dim)."""
        if isinstance(self.generator, StyleGenerator):
            return self.generator.mapping(latents, labels)
        return latents[:, None]

    def synthesize(self, ws: Tensor, labels: Tensor) -> Tensor:
        """ws (n, num_ws, w_dim) → images float32 (n, channels, height, width) in [-1, 1]; labels
        count only where there is no mapping."""
        if isinstance(self.generator, StyleGenerator):
            return self.generator.synthesis(ws).float()
        images: Tensor = self.generator(ws[:, 0], labels).float()
        return images

    def truncate(self, ws: Tensor, psi: float) -> Tensor:
        """mean + psi · (w − mean) (Karras et al. 2019, appendix B); 1 changes nothing."""
        return ws if psi == 1 else self.w_avg + psi * (ws - self.w_avg)

    @torch.no_grad()
    def generate(self, ws: Tensor, labels: Tensor, batch: int = BATCH) -> Pixels:
        """Pictures uint8 (n, height, width, channels)."""
        parts = []
        for some, which in zip(torch.split(ws, batch), torch.split(labels, batch), strict=True):
            images = self.synthesize(some, which).clamp(-1, 1)
            parts.append(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
        pixels: Pixels = torch.cat(parts).numpy()
        return pixels

    def at(self, generator: Generator) -> LatentSpace:
        """The same space of another copy of the generator."""
        return replace(self, generator=generator)


def build_latent_space(generator: Generator, latent: str, classes: int) -> LatentSpace:
    """The space of a generator in evaluation mode."""
    if isinstance(generator, StyleGenerator):
        mean = generator.w_avg.detach().float()
        return LatentSpace(generator, latent, classes, generator.num_ws, len(mean), mean)
    device = next(generator.parameters()).device
    mean = torch.zeros(generator.z_dim, device=device)
    return LatentSpace(generator, latent, classes, 1, generator.z_dim, mean)


def style_weights(space: LatentSpace) -> list[Tensor]:
    """What first meets w, a layer of ws each: the weights (out, w_dim) of the convolutions' style
    affines in order, or, with no mapping, the first layer's alone."""
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
    return [inputs[:, : space.w_dim]]  # what is left are embedded labels

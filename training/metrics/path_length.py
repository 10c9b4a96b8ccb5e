"""Perceptual path length: how smoothly images change with the latent (Karras et al. 2019, 4.1).

E[d(G(z(t)), G(z(t + ε))) / ε²], ε = 10⁻⁴. In W (eq. 3) on linear interpolations, at the path's ends
(t = 0) as since StyleGAN2; in Z (eq. 2) on the great circle at a random t. Published values use
LPIPS-VGG; with another distance d the values differ, so the name contains that of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.latent.space import StyleGenerator
from training.metrics.fake import draw_inputs, isolated_rng
from training.networks import Generator
from training.seeds import derive

EPSILON = 1e-4
_BATCH = 16
_CUT = 1.0
"""Percentage of the shortest and of the longest paths that are excluded, as published."""

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PathLength:
    """`space` is "w" or "z"; `sd` the standard error of `value` over `count` paths."""

    space: str
    value: float
    sd: float
    count: int


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Linear interpolation from `a` to `b`."""
    return a + (b - a) * t


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of the directions of `a` and `b` (n, d), t (n, 1), in float64; the
    lengths are interpolated linearly."""
    lengths = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    a, b = a / lengths[0], b / lengths[1]
    angle = (a * b).sum(1, keepdim=True).clamp(-1, 1).arccos()
    across = (b - a * angle.cos()) / angle.sin().clamp_min(1e-12)
    way = a * (angle * t).cos() + across * (angle * t).sin()
    return way * lerp(*lengths, t)


def _steps(
    generator: Generator, latent: str, ends: tuple[Tensor, Tensor], labels: Tensor, t: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Generates images at points that are ε apart on a path."""
    if isinstance(generator, StyleGenerator):
        a, b = (generator.mapping(end, labels) for end in ends)
        return generator.synthesis, a, lerp(a, b, EPSILON)
    between = lerp if latent == "uniform" else slerp
    exact = ends[0].double(), ends[1].double()
    a, b = (between(*exact, moment).to(ends[0].dtype) for moment in (t, t + EPSILON))
    return (lambda z: generator(z, labels)), a, b


@torch.no_grad()
def path_length(
    generator: Generator,
    latent: str,
    distance: Distance,
    labels: NDArray[np.int64],
    count: int,
    device: torch.device,
    seed: int = 0,
) -> PathLength:
    """Compute the path length of a generator in evaluation mode on `device`.

    In W for a style generator, otherwise in Z. `distance` takes two batches of images in [-1, 1]
    and returns (n,) squared distances. Both ends of a path have the same label, drawn from
    `labels`.
    """
    starts, which = draw_inputs(latent, generator.z_dim, labels, count, seed, device)
    ends, _ = draw_inputs(
        latent, generator.z_dim, labels, count, derive(seed, "ends"), device
    )  # fmt: skip
    random = torch.Generator().manual_seed(derive(seed, "moments"))
    moments = torch.rand(count, 1, generator=random).double().to(device)
    found = []
    for number in range(0, count, _BATCH):
        some = slice(number, number + _BATCH)
        pair = starts[some], ends[some]
        make, a, b = _steps(generator, latent, pair, which[some], moments[some])
        images = []
        for inputs in (a, b):  # the same noise for both
            with isolated_rng(derive(seed, "noise", number), device):
                images.append(make(inputs).float())
        found.append(distance(*images).double().cpu().numpy() / EPSILON**2)
    lengths = np.concatenate(found)
    low = np.percentile(lengths, _CUT, method="lower")
    high = np.percentile(lengths, 100 - _CUT, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    space = "w" if isinstance(generator, StyleGenerator) else "z"
    error = float(kept.std(ddof=1) / np.sqrt(len(kept)))
    return PathLength(space, float(kept.mean()), error, count)

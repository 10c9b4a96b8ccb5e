"""Random latents."""

from __future__ import annotations

import torch
from torch import Tensor

from training.seeds import derive


def draw_latents(
    kind: str, count: int, z_dim: int, random: torch.Generator, device: torch.device
) -> Tensor:
    """Draw latents float32 (count, z_dim): `gaussian` N(0, 1), `uniform` in [-1, 1] (Radford
    2016), or on the `sphere` of radius √z_dim."""
    if kind == "uniform":
        return torch.rand(count, z_dim, generator=random, device=device) * 2 - 1
    latents = torch.randn(count, z_dim, generator=random, device=device)
    if kind == "sphere":
        latents = latents * (z_dim**0.5 / latents.norm(dim=1, keepdim=True))
    return latents


def fixed_latents(kind: str, count: int, z_dim: int, seed: int, device: torch.device) -> Tensor:
    """Return the latents of sample grids: the same for a seed on every device."""
    random = torch.Generator().manual_seed(derive(seed, "fixed latents"))
    return draw_latents(kind, count, z_dim, random, torch.device("cpu")).to(device)

"""Interpolation between points of a latent space."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Linear interpolation: points (steps, …) from `start` (0) to `end` (1)."""
    along = share.view(-1, *[1] * start.dim())
    return start + along * (end - start)


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985) over the last dimension: points (steps, …).

    Lengths are interpolated linearly, so normal latents keep a typical length. If the ends are
    parallel or opposite, the interpolation is linear.
    """
    lengths = [point.norm(dim=-1, keepdim=True).clamp(min=1e-12) for point in (start, end)]
    units = start / lengths[0], end / lengths[1]
    cosine = (units[0] * units[1]).sum(dim=-1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    along = share.view(-1, *[1] * start.dim())
    turned = torch.sin((1 - along) * angle) * units[0] + torch.sin(along * angle) * units[1]
    direct = (1 - along) * units[0] + along * units[1]
    unit = torch.where(sine < 1e-4, direct, turned / sine.clamp(min=1e-12))
    return unit * lerp(lengths[0], lengths[1], share)


def walk(points: Tensor, steps: int, curve: str, closed: bool) -> Tensor:
    """Interpolate from point to point (n, …), with `steps` images per pair.

    `curve` is `lerp` or `slerp`. A closed walk returns to its start and repeats no image, so it
    loops; an open one ends with the last point. (m, …).
    """
    way = slerp if curve == "slerp" else lerp
    share = torch.arange(steps, device=points.device) / steps
    ends = torch.cat([points[1:], points[:1]]) if closed else points[1:]
    parts = [way(start, end, share) for start, end in zip(points, ends, strict=False)]
    return torch.cat(parts if closed else [*parts, points[-1:]])


def walk_rows(points: Tensor, steps: int, curve: str) -> Tensor:
    """Return each pair of a walk with both of its ends: ((n − 1) · steps, …)."""
    way = slerp if curve == "slerp" else lerp
    share = torch.linspace(0, 1, steps, device=points.device)
    return torch.cat([way(*pair, share) for pair in pairwise(points)])

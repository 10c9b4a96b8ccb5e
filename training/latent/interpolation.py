"""Ways between points of a latent space."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The straight way: points (steps, …) from `start` (0) to `end` (1)."""
    along = share.view(-1, *[1] * start.dim())
    return start + along * (end - start)


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The way along the great circle (Shoemake 1985), over the last dimension: points (steps, …).

    Lengths go from one to the other in a straight line, so normal latents stay as long as they
    ought to be. Where the ends are parallel or opposite it is the straight way.
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
    """From point to point (n, …), `steps` pictures each way.

    `curve` is `lerp` or `slerp`. A closed walk comes back to where it began and repeats no picture,
    so it loops; an open one ends with the last point. (m, …).
    """
    way = slerp if curve == "slerp" else lerp
    share = torch.arange(steps, device=points.device) / steps
    ends = torch.cat([points[1:], points[:1]]) if closed else points[1:]
    parts = [way(start, end, share) for start, end in zip(points, ends, strict=False)]
    return torch.cat(parts if closed else [*parts, points[-1:]])


def walk_rows(points: Tensor, steps: int, curve: str) -> Tensor:
    """Each way of a walk with both of its ends: ((n − 1) · steps, …)."""
    way = slerp if curve == "slerp" else lerp
    share = torch.linspace(0, 1, steps, device=points.device)
    return torch.cat([way(*pair, share) for pair in pairwise(points)])

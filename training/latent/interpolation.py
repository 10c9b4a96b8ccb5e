"""Interpolation between points of a latent space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Curve = Literal["lerp", "slerp", "spline"]


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


def spline(
    before: Tensor, start: Tensor, end: Tensor, after: Tensor, share: Tensor, keep_length: bool
) -> Tensor:
    """Catmull-Rom spline (Catmull & Rom 1974) from `start` (0) to `end` (1): points (steps, …).

    Neither the direction nor the speed jumps at a point. With `keep_length`, the vectors of the
    last dimension get the length that `slerp` gives them.
    """
    s = share.view(-1, *[1] * start.dim())
    bend = 2 * before - 5 * start + 4 * end - after
    turn = 3 * (start - end) + after - before
    curve = start + 0.5 * s * (end - before + s * (bend + s * turn))
    if not keep_length:
        return curve
    first, last = (point.norm(dim=-1, keepdim=True) for point in (start, end))
    return normalize(curve, dim=-1) * lerp(first, last, share)


def points_along(
    points: Tensor, positions: Tensor, curve: Curve, closed: bool, keep_length: bool = False
) -> Tensor:
    """Interpolate between points (n, …): position 1.5 is half way from point 1 to point 2; (m, …).

    `positions` (m,) are ascending, from 0 to the number of pairs: n if `closed`, because then the
    last point leads back to the first, otherwise n − 1. `keep_length` applies to splines.
    """
    count = len(points)
    pairs = count if closed else count - 1
    which = positions.floor().clamp(0, pairs - 1).long()
    share = (positions - which).to(points.dtype)

    def point(number: int) -> Tensor:
        return points[number % count if closed else min(max(number, 0), count - 1)]

    parts = []
    for pair in sorted(set(which.tolist())):
        here = share[which == pair]
        start, end = point(pair), point(pair + 1)
        if curve == "spline":
            before, after = point(pair - 1), point(pair + 2)
            parts.append(spline(before, start, end, after, here, keep_length))
        else:
            parts.append((slerp if curve == "slerp" else lerp)(start, end, here))
    return torch.cat(parts)

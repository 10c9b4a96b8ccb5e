"""Ways between latents."""

from __future__ import annotations

import math

import torch

from training.latent.interpolation import lerp, slerp, walk, walk_rows


def test_slerp_turns_at_an_even_pace() -> None:
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    way = slerp(start, end, torch.linspace(0, 1, 7))
    angles = torch.atan2(way[:, 1], way[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 7))
    torch.testing.assert_close(way.norm(dim=1), torch.linspace(1, 3, 7))


def test_slerp_has_no_holes() -> None:
    point, share = torch.tensor([0.3, -2.0, 1.0]), torch.linspace(0, 1, 5)
    torch.testing.assert_close(slerp(point, point * 2, share)[2], point * 1.5)
    assert slerp(point, -point, share).isfinite().all()
    assert slerp(point, torch.zeros(3), share).isfinite().all()


def test_slerp_keeps_the_length_that_lerp_loses() -> None:
    ends = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    half = torch.tensor([0.5])
    assert slerp(*ends, half).norm() > 21
    assert lerp(*ends, half).norm() < 17


def test_walks_begin_end_and_close() -> None:
    points = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    for curve in ("lerp", "slerp"):
        opened, closed = walk(points, 5, curve, False), walk(points, 5, curve, True)
        assert len(opened) == 11
        assert len(closed) == 15
        torch.testing.assert_close(opened[::5], points)
        torch.testing.assert_close(closed[::5], points)
        sheet = walk_rows(points, 5, curve).unflatten(0, (2, 5))
        torch.testing.assert_close(sheet[:, 0], points[:2])
        torch.testing.assert_close(sheet[:, -1], points[1:])

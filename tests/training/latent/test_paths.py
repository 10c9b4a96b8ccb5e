"""Ways between latents."""

from __future__ import annotations

import math

import pytest
import torch

from training.latent.interpolation import Curve, lerp, points_along, slerp


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


@pytest.mark.parametrize("curve", ["lerp", "slerp", "spline"])
def test_paths_go_through_their_points_and_close(curve: Curve) -> None:
    points = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([0.0, 1.0, 1.0, 2.0])
    wanted = points[[0, 1, 1, 2]]
    torch.testing.assert_close(points_along(points, whole, curve, False), wanted)
    torch.testing.assert_close(points_along(points, whole, curve, True), wanted)
    end = torch.tensor([3.0])
    torch.testing.assert_close(points_along(points, end, curve, True), points[:1])
    just_before = points_along(points, end - 1e-4, curve, True)
    torch.testing.assert_close(just_before, points[:1], atol=1e-3, rtol=0)


def test_a_closed_spline_has_no_corners() -> None:
    points = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).double()

    def turn(curve: Curve, keep_length: bool) -> float:
        """The largest change of the velocity at a point, relative to the mean speed."""
        near = torch.tensor([-1e-5, 0, 1e-5], dtype=torch.float64)
        changes, speeds = [], []
        for corner in range(4):
            here = (near + corner) % 4
            order = here.argsort()
            path = torch.empty(3, 8, dtype=torch.float64)
            path[order] = points_along(points, here[order], curve, True, keep_length)
            before, after = path.diff(dim=0)
            changes.append((after - before).norm())
            speeds += [before.norm(), after.norm()]
        return float(max(changes) / (sum(speeds) / 8))

    assert turn("spline", False) < 1e-3
    assert turn("lerp", False) > 0.5
    assert turn("slerp", False) > 0.5


def test_a_spline_on_a_sphere_stays_there() -> None:
    points = torch.nn.functional.normalize(torch.randn(5, 64), dim=1) * 8
    along = torch.linspace(0, 5, 101)
    kept = points_along(points, along, "spline", True, keep_length=True).norm(dim=1)
    torch.testing.assert_close(kept, torch.full((101,), 8.0))
    assert points_along(points, along, "spline", True).norm(dim=1).min() < 7.5

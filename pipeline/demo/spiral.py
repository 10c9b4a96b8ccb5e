"""The helico-spiral of coiled shells.

A closed generating curve turns about the shell's axis while it grows by the same factor W in
every whorl (D. M. Raup, "Geometric analysis of shell coiling: general problems", Journal of
Paleontology 40, 1966, pp. 1178-1190). With the apex at the origin and the axis along y, a
point (r, y) of the curve at angle phi, counted in radians from the aperture, lies at

    (r cos phi, y, r sin phi) * W ** (phi / 2 pi)

which contains Raup's translation T (how far the curve sits down the axis relative to its
distance from it), distance D (how near it comes to the axis) and shape S (the curve itself).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.demo.raster import Bools, Floats

TURN = 2 * np.pi


def smoothstep(low: float, high: float, values: Floats) -> Floats:
    """Return 0 below ``low``, 1 above ``high`` and a smooth cubic between them."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    eased: Floats = t * t * (3 - 2 * t)
    return eased


def closed_curve(knots: Floats, count: int) -> tuple[Floats, Floats]:
    """Pass a closed Catmull-Rom spline through (k, 2) knots.

    Returns ``count + 1`` points (the last repeats the first) evenly spaced in arc length, and
    the fraction of the length in [0, 1) at which each knot lies.
    """
    per_span = 48
    p0, p1 = np.roll(knots, 1, axis=0)[:, None], knots[:, None]
    p2, p3 = np.roll(knots, -1, axis=0)[:, None], np.roll(knots, -2, axis=0)[:, None]
    t = (np.arange(per_span) / per_span)[None, :, None]
    fine = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    dense = fine.reshape(-1, 2)
    dense = np.vstack([dense, dense[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(dense, axis=0).T))])
    at = np.linspace(0.0, length[-1], count + 1)
    curve = np.column_stack([np.interp(at, length, dense[:, axis]) for axis in (0, 1)])
    return curve.astype(np.float32), (length[:-1:per_span] / length[-1]).astype(np.float32)


def curve_normals(curve: Floats) -> Floats:
    """Return unit normals (n, 2) of a closed curve, to the left of the direction of travel.

    Curves here run from the suture outward and down, so left is away from the tube.
    """
    tangent = np.empty_like(curve)
    tangent[1:-1] = curve[2:] - curve[:-2]
    tangent[0] = tangent[-1] = curve[1] - curve[-2]
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-12)[:, None]
    return np.column_stack([-tangent[:, 1], tangent[:, 0]])


@dataclass(frozen=True)
class Coil:
    """A coiled shell: generating curve, growth and aperture.

    ``curve`` (n + 1, 2) runs from the suture over the outside to the foot of the columella
    (at fraction ``foot`` of its length) and back inside; ``thickness`` is that of the lip and
    ``flare`` how far the lip turns outward, both in the units of the curve.
    """

    curve: Floats
    foot: float
    expansion: float
    whorls: float
    thickness: float
    flare: float = 0.0
    flare_angle: float = 0.35
    inner_angle: float = 3.6
    rows_per_turn: int = 120
    lean: Floats = field(default_factory=lambda: np.zeros(1, dtype=np.float32))

    @property
    def across(self) -> Floats:
        """Position of each curve point: 0 at the suture, 1 at the foot, above 1 inside."""
        return np.linspace(0.0, 1.0 / self.foot, len(self.curve), dtype=np.float32)

    @property
    def outside(self) -> Floats:
        """Weight in [0, 1] of each curve point for sculpture: 1 outside, 0 inside."""
        across = self.across
        return smoothstep(0.0, 0.05, across) * (1 - smoothstep(0.86, 1.0, across))


@dataclass(frozen=True)
class Sheet:
    """The surface of a coil, with the row properties that a painter needs.

    ``points`` (rows, n, 3); ``keep`` (rows - 1, n - 1); ``phi`` (rows,) in radians; ``inner``
    (rows,) is 0 on the outside, rises over the lip and is 1 within the tube.
    """

    points: Floats
    keep: Bools
    phi: Floats
    inner: Floats


def growth_angles(coil: Coil) -> Floats:
    """Return phi of the outer rows, oldest first, denser where the shell is larger."""
    angles = [0.0]
    while angles[-1] > -coil.whorls * TURN:
        scale = coil.expansion ** (angles[-1] / TURN)
        angles.append(angles[-1] - TURN / coil.rows_per_turn * min(scale**-0.4, 2.2))
    return np.array(angles[::-1], dtype=np.float32)


def sweep_surface(coil: Coil, relief: Floats, phi: Floats) -> Sheet:
    """Sweep a coil's outside, lip and inside into one sheet.

    ``phi`` (k,) are the angles of the outer rows, ending in 0; ``relief`` (k, n) is the
    displacement along the outward normal, in units of the local scale of growth.
    """
    normals = curve_normals(coil.curve)
    flare = coil.flare * smoothstep(-coil.flare_angle, 0.0, phi) ** 2
    lift = relief + flare[:, None] * coil.outside[None, :]
    scale = np.power(coil.expansion, phi / TURN)[:, None]
    lean = np.broadcast_to(coil.lean, (len(coil.curve),))
    turned = phi[:, None] + lean[None, :] * smoothstep(-2.5, 0.0, phi)[:, None]
    outer = place_curve(coil, normals, lift, scale, turned)
    bend = np.linspace(0.0, np.pi, 10, dtype=np.float32)[1:]
    inset = coil.thickness * (1 - np.cos(bend)) / 2
    forward = 0.5 * coil.thickness * np.sin(bend) / float(np.abs(coil.curve[:, 0]).max())
    edge = lift[-1][None, :] - inset[:, None]
    lip = place_curve(
        coil, normals, edge, np.ones((len(bend), 1), np.float32), lean + forward[:, None]
    )
    depth = np.linspace(0.0, coil.inner_angle, 90, dtype=np.float32)[1:] ** 1.0
    calm = 1 - smoothstep(0.0, coil.flare_angle, depth)
    within = edge[-1][None, :] * calm[:, None] - coil.thickness * (1 - calm[:, None])
    inner_scale = np.power(coil.expansion, -depth / TURN)[:, None]
    back = -depth[:, None] + lean[None, :] * smoothstep(-2.5, 0.0, -depth)[:, None]
    inner = place_curve(coil, normals, within, inner_scale, back)
    points = np.concatenate([outer, lip, inner])
    angle = np.concatenate([phi, 0 * bend, -depth]).astype(np.float32)
    level = np.concatenate([0 * phi, bend / np.pi, 1 + 0 * depth]).astype(np.float32)
    keep = np.ones((len(points) - 1, len(coil.curve) - 1), dtype=np.bool_)
    hidden = (coil.across[:-1] > 1.03) | (coil.across[1:] <= 0.0)
    keep[: int(np.searchsorted(phi, -1.2 * np.pi))][:, hidden] = False
    return Sheet(points, keep, angle, level)


def place_curve(coil: Coil, normals: Floats, lift: Floats, scale: Floats, turned: Floats) -> Floats:
    """Return points (k, n, 3) of the lifted curve, scaled (k, 1) and turned (k, n)."""
    radius = (coil.curve[None, :, 0] + normals[None, :, 0] * lift) * scale
    height = (coil.curve[None, :, 1] + normals[None, :, 1] * lift) * scale
    return np.stack([radius * np.cos(turned), height, radius * np.sin(turned)], axis=-1).astype(
        np.float32
    )


def rotate_points(points: Floats, yaw: float, pitch: float, roll: float) -> Floats:
    """Turn points (..., 3) about the vertical, then the horizontal, then the viewing axis.

    Angles are in degrees; positive yaw brings the right side towards the viewer, positive
    pitch the top, positive roll turns anticlockwise.
    """
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = (about_z @ about_x @ about_y).astype(np.float32)
    turned: Floats = points @ matrix.T
    return turned

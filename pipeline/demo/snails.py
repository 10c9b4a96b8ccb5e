"""Coiled families: their generating curves, sculpture and materials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.demo.light import Material, Surface
from pipeline.demo.palettes import Palette
from pipeline.demo.pigment import grow_pattern, sample_pattern
from pipeline.demo.raster import Floats
from pipeline.demo.spiral import (
    TURN,
    Coil,
    Sheet,
    closed_curve,
    growth_angles,
    rotate_points,
    smoothstep,
    sweep_surface,
)

Knots = list[tuple[float, float]]


@dataclass(frozen=True)
class Pattern:
    """A pigment pattern on a shell.

    ``recipe`` and ``key`` name the grown sheet, of which ``lines_per_whorl`` lines cover a
    whorl; pigment sets in between ``low`` and ``high`` with ``strength`` in [0, 1];
    ``starts`` is how many radians behind the lip the pattern ends; ``mirrored`` patterns run
    from both sutures to the middle of the outside.
    """

    recipe: str
    key: int
    lines_per_whorl: float
    low: float = 0.25
    high: float = 0.6
    strength: float = 1.0
    offset: float = 0.0
    starts: float = 0.0
    mirrored: bool = False


def spired_curve(
    half_angle: float, expansion: float, side: Knots, base: Knots, inside: Knots, count: int = 168
) -> tuple[Floats, float]:
    """Return a generating curve (count + 1, 2) of a spired shell and where its foot lies.

    The suture of the last whorl is at distance 1 below the apex on a cone of ``half_angle``
    degrees. ``side`` gives (t, e): t from 0 at that suture to 1 where the next would be, e
    outward in units of their distance. ``base`` gives (r, d): radius and depth below the
    lower end, in units of its radius, ending at the foot; ``inside`` continues likewise up
    the columella.
    """
    slope = np.tan(np.radians(half_angle))
    suture = np.array([slope, -1.0])
    step = suture * (expansion - 1)
    outward = np.array([1.0, slope]) / np.hypot(1.0, slope) * np.hypot(*step)
    lower = suture * expansion
    knots = [suture + step * t + outward * e for t, e in side]
    knots += [np.array([lower[0] * r, lower[1] - lower[0] * d]) for r, d in base]
    foot = len(knots) - 1
    knots += [np.array([lower[0] * r, lower[1] - lower[0] * d]) for r, d in inside]
    curve, at = closed_curve(np.array(knots), count)
    return curve, float(at[foot])


def blend(first: Floats, second: Floats, share: Floats) -> Floats:
    """Blend colours (n, 3) or (3,) by a fraction (n,)."""
    blended: Floats = first + (second - first) * share[:, None]
    return blended


def colour(values: tuple[float, float, float]) -> Floats:
    """Return an sRGB triple as an array (3,)."""
    return np.array(values, dtype=np.float32)


def pigment_amount(layer: Pattern, phi: Floats, across: Floats) -> Floats:
    """Return in [0, 1] how much of a layer's pigment lies at n angles and positions."""
    field = grow_pattern(layer.recipe, layer.key)
    if layer.mirrored:
        across = 1 - np.abs(2 * across - 1)
    line = phi / TURN * layer.lines_per_whorl + layer.offset
    amount = smoothstep(layer.low, layer.high, sample_pattern(field, line, across)) * layer.strength
    if layer.starts:
        amount = amount * smoothstep(layer.starts, layer.starts + 0.9, -phi)
    return amount


def painter(
    coil: Coil,
    sheet: Sheet,
    palette: Palette,
    pattern: Pattern,
    second: Pattern | None,
    gloss: float,
    lines: Floats,
) -> Callable[[Floats, Floats], Material]:
    """Return the painter of a coiled shell; ``lines`` (256,) are tints of growth lines."""
    ground, mark = colour(palette.ground), colour(palette.mark)
    other, throat = colour(palette.second), colour(palette.throat)

    def paint(row: Floats, column: Floats) -> Material:
        low = row.astype(np.intp)
        part = row - low
        high = np.minimum(low + 1, len(sheet.phi) - 1)
        phi = sheet.phi[low] * (1 - part) + sheet.phi[high] * part
        inner = sheet.inner[low] * (1 - part) + sheet.inner[high] * part
        across = column * (coil.across[-1] / (len(coil.curve) - 1))
        tint = np.broadcast_to(ground, (len(row), 3))
        fade = np.clip(1.15 - 0.12 * np.abs(phi) / TURN, 0.35, 1.0)
        for layer, ink in ((second, other), (pattern, mark)):
            if layer is not None:
                tint = blend(tint, ink, pigment_amount(layer, phi, across) * fade)
        age = np.mod(phi * 40.0, len(lines)).astype(np.intp)
        tint = tint * (1 + 0.5 * (lines[age] - 0.5) * 0.16)[:, None]
        within = smoothstep(0.15, 0.6, inner)
        depth = np.clip(-phi, 0, None) * (inner >= 1)
        pale = np.exp(-depth * 2.2)
        lining = throat + (np.float32(0.97) - throat) * (0.72 * pale)[:, None]
        tint = blend(tint, lining, within)
        openness = 1 - (inner >= 1) * 0.72 * smoothstep(0.1, 1.9, depth)
        shine = gloss + (0.75 - gloss) * within
        return Material(
            np.clip(tint, 0, 1).astype(np.float32),
            shine.astype(np.float32),
            openness.astype(np.float32),
        )

    return paint


def coiled(
    coil: Coil,
    relief: Callable[[Floats, Floats], Floats],
    palette: Palette,
    pattern: Pattern,
    second: Pattern | None,
    gloss: float,
    pose: tuple[float, float, float],
    rng: np.random.Generator,
) -> list[Surface]:
    """Return the surfaces of a coiled shell in its pose (yaw, pitch, roll in degrees).

    ``relief(phi, across)`` takes (k, 1) radians and (1, n) positions and gives (k, n).
    """
    phi = growth_angles(coil)
    lifted = relief(phi[:, None], coil.across[None, :]) * coil.outside[None, :]
    sheet = sweep_surface(coil, lifted.astype(np.float32), phi)
    lines = rng.random(256).astype(np.float32)
    paint = painter(coil, sheet, palette, pattern, second, gloss, lines)
    return [Surface(rotate_points(sheet.points, *pose), sheet.keep, paint)]

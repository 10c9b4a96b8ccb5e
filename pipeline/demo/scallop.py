"""Scallops: a coil that grows so fast that one valve is a small part of the first whorl.

The same helico-spiral as in ``spiral`` with no translation (T = 0), an axis along the hinge
and W of several thousands sweeps the valve's margin from the umbo (Raup 1966, figure 4).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.demo.light import Material, Surface
from pipeline.demo.palettes import Palette, palette
from pipeline.demo.pigment import grow_pattern, sample_pattern
from pipeline.demo.randomness import jitter
from pipeline.demo.raster import Floats
from pipeline.demo.snails import blend, colour
from pipeline.demo.spiral import TURN, rotate_points, smoothstep

Rng = np.random.Generator
COLUMNS = 420
ROWS = 150


def margin(half_angle: float, ribs: float, scallops: float) -> tuple[Floats, Floats]:
    """Return the valve's margin (n, 2) as (x, distance from the hinge) and n rib heights."""
    angle = np.linspace(-half_angle, half_angle, COLUMNS)
    ridge = 0.5 + 0.5 * np.cos(angle / half_angle * ribs * np.pi)
    ridge = np.sqrt(ridge) * (1 - np.abs(angle / half_angle) ** 12)
    reach = np.cos(angle) ** 0.55 * (1 - 0.30 * np.abs(angle / half_angle) ** 7)
    reach = reach * (1 + scallops * (ridge - 0.5))
    outline = np.column_stack([np.sin(angle) * reach, np.cos(angle) * reach])
    return outline.astype(np.float32), ridge.astype(np.float32)


def valve(outline: Floats, lift: Floats, expansion: float) -> tuple[Floats, Floats]:
    """Sweep a margin about the hinge: points (ROWS, n, 3), and the size (ROWS,) in (0, 1].

    ``lift`` (n,) raises ribs, in units of the valve's height.
    """
    size = np.linspace(0.02, 1.0, ROWS, dtype=np.float32) ** 1.1
    angle = -np.log(size) / np.log(expansion) * TURN
    reach, across = outline[None, :, 1] * size[:, None], outline[None, :, 0] * size[:, None]
    flat = smoothstep(1.02, 0.9, size)[:, None] * 0.5 + 0.5
    raised = lift[None, :] * size[:, None] ** 1.2 * flat
    turn = angle[:, None]
    up = reach * np.sin(turn) * 1.15 + raised
    points = np.stack([across, -reach * np.cos(turn), up], axis=-1)
    return points.astype(np.float32), size


def ear(side: int, length: float, notch: float, half_angle: float) -> Floats:
    """Return an auricle (40, 40, 3) on the left (-1) or right (+1) of the umbo."""
    u = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    v = np.linspace(0, 1, 40, dtype=np.float32)[None, :]
    reach = 0.46
    hinge_x = 0.0 + length * u
    edge_x, edge_y = reach * np.sin(half_angle) * 0.93 * u, -reach * np.cos(half_angle) * 1.05 * u
    bow = notch * np.sin(np.pi * v) * u**3
    x = hinge_x * (1 - v) + edge_x * v - bow
    y = 0.02 * (1 - u) * (1 - v) + edge_y * v
    ridges = 0.006 * np.cos(v * 5 * TURN) * u
    z = 0.035 * (1 - u**4) * (0.4 + v) + ridges + 0.02 * v
    points = np.stack([side * x, y + 0 * x, z + 0 * x], axis=-1).astype(np.float32)
    return points if side < 0 else points[:, ::-1]


def coat_of(
    colours: Palette, key: int, ridge: Floats, size: Floats, species: Rng, specimen: Rng
) -> Callable[[Floats, Floats], Material]:
    """Return the painter of the valve: growth bands, rays and darker grooves."""
    ground, mark, other = colour(colours.ground), colour(colours.mark), colour(colours.second)
    rings, rays = grow_pattern("ripples", key), grow_pattern("bands", key + 1)
    scale, offset = species.uniform(90, 200), specimen.uniform(0, 200)
    ringed, rayed = species.uniform(0.3, 0.95), species.uniform(0.0, 0.8)
    blush = species.uniform(0.0, 0.8)
    lines = specimen.random(200).astype(np.float32)

    def paint(row: Floats, column: Floats) -> Material:
        grown_to = np.interp(row, np.arange(len(size)), size).astype(np.float32)
        across = column / (COLUMNS - 1)
        ring = sample_pattern(rings, grown_to * scale + offset, across)
        tint = blend(ground, other, smoothstep(0.1, 0.5, ring) * ringed)
        ray = sample_pattern(rays, 0 * across + 100, np.abs(2 * across - 1))
        tint = blend(tint, mark, smoothstep(0.35, 0.85, ray) * rayed)
        tint = blend(tint, mark, smoothstep(0.75, 0.0, grown_to) * blush)
        height = np.interp(column, np.arange(COLUMNS), ridge).astype(np.float32)
        fine = lines[np.mod(grown_to * 90, len(lines)).astype(np.intp)] - 0.5
        tint = tint * (0.86 + 0.16 * height + 0.10 * fine)[:, None]
        even = np.ones_like(row)
        return Material(np.clip(tint, 0, 1), 0.3 * even, 0.75 + 0.25 * height)

    return paint


def scallop(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Pecten-like: a symmetrical ribbed fan with two ears at the hinge."""
    colours = palette("scallop", species, specimen)
    half_angle = jitter(specimen, species.uniform(0.76, 0.94), 0.04)
    ribs = float(species.integers(8, 13)) * 2
    outline, ridge = margin(half_angle, ribs, species.uniform(0.015, 0.03))
    lift = ridge * species.uniform(0.022, 0.036)
    expansion = jitter(specimen, species.uniform(1.5e3, 8e3), 0.1)
    points, size = valve(outline, lift.astype(np.float32), expansion)
    paint = coat_of(colours, key, ridge, size, species, specimen)
    length, notch = species.uniform(0.36, 0.44), species.uniform(0.02, 0.06)
    keep = np.ones((ROWS - 1, COLUMNS - 1), dtype=np.bool_)
    surfaces = [Surface(rotate_points(points, 0, 0, 0), keep, paint)]
    ground, mark = colour(colours.ground), colour(colours.mark)

    def ears(row: Floats, column: Floats) -> Material:
        riblets = 0.5 + 0.5 * np.cos(column / 39 * 5 * TURN)
        tint = blend(ground, mark, 0.45 - 0.25 * riblets + 0.004 * row)
        return Material(tint.astype(np.float32), 0.25 + 0 * row, 0.9 + 0 * row)

    for side in (-1, 1):
        patch = ear(side, length * (1.0 if side > 0 else 0.93), notch, half_angle)
        surfaces.append(Surface(patch, np.ones((39, 39), dtype=np.bool_), ears))
    return surfaces

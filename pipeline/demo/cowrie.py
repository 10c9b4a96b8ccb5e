"""Cowries: the last whorl wraps the whole shell, so the outside is one glossy dome."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.demo.light import Material, Surface
from pipeline.demo.palettes import Palette, palette
from pipeline.demo.pigment import grow_pattern, sample_pattern
from pipeline.demo.randomness import jitter
from pipeline.demo.raster import Floats, sample_grid
from pipeline.demo.snails import blend, colour
from pipeline.demo.spiral import TURN, rotate_points, smoothstep

Rng = np.random.Generator
ROWS, COLUMNS = 170, 260


def egg(width: float, taper: float, beaks: float) -> Floats:
    """Return the outline (COLUMNS, 2), anticlockwise from the top, of length 2 along y.

    ``width`` is the ratio of breadth to length, ``taper`` makes the lower end narrower and
    ``beaks`` squares off both ends.
    """
    angle = np.linspace(TURN, 0, COLUMNS)
    y = np.cos(angle)
    x = np.sin(angle) * width * (1 + taper * y)
    ends = 1 + beaks * (np.exp(-((x / 0.16) ** 2)) - 0.8 * np.exp(-((x / 0.06) ** 2)))
    return np.column_stack([x, y * ends])


def dome(outline: Floats, height: float, rim: float) -> Floats:
    """Return the upper side (ROWS, COLUMNS, 3) over an outline, with a swollen margin."""
    out = np.sin(np.linspace(0.0, np.pi / 2, ROWS)) ** 0.96
    level = (1 - out**2.3) ** 0.62
    swollen = rim * np.exp(-(((out - 0.95) / 0.06) ** 2))
    points = np.empty((ROWS, COLUMNS, 3), dtype=np.float32)
    points[..., :2] = out[:, None, None] * outline[None]
    points[..., 2] = (height * level + swollen)[:, None]
    return points


def add_teeth(points: Floats, bend: float, teeth: int) -> tuple[Floats, Floats]:
    """Cut a toothed slit into the underside.

    Returns the points and how deep each lies in the slit, (ROWS, COLUMNS) in [0, 1].
    """
    x, y = points[..., 0], points[..., 1]
    middle = 0.05 + bend * (y * y - 0.15)
    half = 0.035 + 0.022 * smoothstep(0.1, -0.9, y)
    away = np.abs(x - middle) / half
    ends = smoothstep(0.97, 0.86, np.abs(y))
    slit = np.exp(-(away**4) * 0.8) * ends
    comb = (0.5 + 0.5 * np.cos(y * teeth * np.pi)) * np.exp(-(((away - 1.7) / 1.25) ** 2)) * ends
    cut = points.copy()
    cut[..., 2] += (0.045 * comb - 0.24 * slit - 0.10 * np.exp(-((away / 4) ** 2)) * ends).astype(
        np.float32
    )
    return cut, slit.astype(np.float32)


def back_coat(
    colours: Palette, key: int, points: Floats, species: Rng, specimen: Rng
) -> Callable[[Floats, Floats], Material]:
    """Return the painter of the upper side: spots, banding, pale mantle line and margin."""
    ground, mark, pale = colour(colours.ground), colour(colours.mark), colour(colours.second)
    base = colour(colours.throat)
    recipe = str(species.choice(["spots", "spots", "drops", "tents"]))
    field, bands = grow_pattern(recipe, key), grow_pattern("bands", key + 1)
    scale, low = species.uniform(120, 180), species.uniform(0.1, 0.3)
    inverted = species.random() < 0.3
    ink, under = (pale, mark * 0.5 + ground * 0.5) if inverted else (mark, ground)
    shift, line_at = specimen.uniform(0, 300), specimen.uniform(-0.12, 0.12)
    banded = species.uniform(0.0, 0.45)

    def paint(row: Floats, column: Floats) -> Material:
        x, y = sample_grid(points[..., :2], row, column).T
        out = row / (ROWS - 1)
        bent = x - line_at - 0.06 * np.sin(3.1 * y + line_at * 40)
        lateral = np.abs(bent) + 0.02
        band = sample_pattern(bands, 0 * x + 50, 0.5 + 0.45 * y)
        tint = blend(under, mark, smoothstep(0.3, 0.9, band) * banded)
        around_line = lateral * scale + shift + np.where(bent > 0, 250, 0)
        spots = smoothstep(low, low + 0.25, sample_pattern(field, around_line, 0.5 + 0.48 * y))
        tint = blend(tint, ink, spots * smoothstep(0.03, 0.09, lateral) * 0.92)
        tint = blend(tint, pale, 0.55 * np.exp(-((lateral / 0.045) ** 2)))
        tint = blend(tint, base, smoothstep(0.78, 0.97, out) * 0.7)
        even = np.ones_like(row)
        return Material(np.clip(tint, 0, 1).astype(np.float32), even, even)

    return paint


def under_coat(colours: Palette, depth: Floats) -> Callable[[Floats, Floats], Material]:
    """Return the painter of the underside: pale base, darker within the slit."""
    base, mark, ground = colour(colours.throat), colour(colours.mark), colour(colours.ground)

    def paint(row: Floats, column: Floats) -> Material:
        inside = sample_grid(depth[..., None], row, column)[:, 0]
        tint = blend(base, ground, smoothstep(0.6, 1.0, row / (ROWS - 1)) * 0.7)
        tint = blend(tint, mark, inside * 0.55)
        even = np.ones_like(row)
        return Material(tint.astype(np.float32), 0.9 * even, 1 - 0.5 * inside)

    return paint


def cowrie(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Cypraea-like: most specimens lie on their base, one in four shows the toothed slit."""
    colours = palette("cowrie", species, specimen)
    width = jitter(specimen, species.uniform(0.60, 0.72), 0.02)
    taper = jitter(specimen, species.uniform(0.04, 0.14), 0.1)
    height = jitter(specimen, species.uniform(0.5, 0.62), 0.03)
    outline = egg(width, taper, species.uniform(0.02, 0.05))
    keep = np.ones((ROWS - 1, COLUMNS - 1), dtype=np.bool_)
    teeth, bend = int(species.integers(15, 23)), species.uniform(-0.1, -0.04)
    seen_from_below = specimen.random() < 0.25
    if seen_from_below:
        points, depth = add_teeth(dome(outline, 0.36, 0.0), bend, teeth)
        paint = under_coat(colours, depth)
    else:
        points = dome(outline, height, species.uniform(0.0, 0.04))
        paint = back_coat(colours, key, points, species, specimen)
    return [Surface(rotate_points(points, 0, 0, 0), keep, paint)]

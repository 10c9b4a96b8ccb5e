"""Rasterises parametric surfaces with a depth buffer.

Each quad of a surface is diced into samples less than a pixel apart (the micropolygons of Cook,
Carpenter and Catmull, "The Reyes image rendering architecture", 1987); only the nearest sample of
every pixel is shaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

SAMPLES_PER_PIXEL = 1.3
DICES = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64])


@dataclass(frozen=True)
class Fragments:
    """The nearest sample of each covered pixel of one surface, n pixels in all.

    ``pixel`` are flat indices into a side x side frame whose row 0 is at the TOP,
    ``depth`` grows towards the viewer (pixels), ``row`` and ``column`` are the fractional
    grid coordinates of the sample on the surface.
    """

    pixel: Ints
    depth: Floats
    row: Floats
    column: Floats


def quad_corners(points: Floats, chosen: Ints) -> Floats:
    """Return corners as (4, k, 3): (0,0), (row+1), (column+1), both, of the chosen quads."""
    columns = points.shape[1]
    flat = points.reshape(-1, 3)
    first = chosen // (columns - 1) * columns + chosen % (columns - 1)
    return np.stack([flat[first + step] for step in (0, columns, 1, columns + 1)])


def facing_quads(points: Floats, keep: Bools) -> Ints:
    """Return flat indices of the kept quads whose outside faces the viewer (+z)."""
    first = points[1:, 1:, :2] - points[:-1, :-1, :2]
    second = points[:-1, 1:, :2] - points[1:, :-1, :2]
    front = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0] > 0
    return np.flatnonzero(front & keep)


def dice_counts(lengths: Floats) -> Ints:
    """Return how many samples, out of DICES, an edge of each length in pixels takes."""
    wanted = np.minimum(np.ceil(lengths * SAMPLES_PER_PIXEL), DICES[-1])
    counts: Ints = np.searchsorted(DICES, wanted)
    return counts


def rasterise(points: Floats, keep: Bools, side: int) -> Fragments:
    """Return the visible fragments of one surface.

    ``points`` is (rows, columns, 3) in pixels, x right, y UP, z towards the viewer; ``keep`` is
    (rows - 1, columns - 1) and excludes quads that are known to be hidden.
    """
    chosen = facing_quads(points, keep)
    corners = quad_corners(points, chosen)
    columns = points.shape[1]
    along_row = np.hypot(*(corners[1] - corners[0])[:, :2].T)
    along_row = np.maximum(along_row, np.hypot(*(corners[3] - corners[2])[:, :2].T))
    along_column = np.hypot(*(corners[2] - corners[0])[:, :2].T)
    along_column = np.maximum(along_column, np.hypot(*(corners[3] - corners[1])[:, :2].T))
    shape = dice_counts(along_row) * len(DICES) + dice_counts(along_column)
    quad_row = (chosen // (columns - 1)).astype(np.float32)
    quad_column = (chosen % (columns - 1)).astype(np.float32)
    parts: list[tuple[Floats, Floats, Floats, Floats, Floats]] = []
    for code in np.unique(shape):
        group = np.flatnonzero(shape == code)
        down, across = DICES[code // len(DICES)], DICES[code % len(DICES)]
        a = np.repeat((np.arange(down, dtype=np.float32) + 0.5) / np.float32(down), across)
        b = np.tile((np.arange(across, dtype=np.float32) + 0.5) / np.float32(across), down)
        basis = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])
        picked = corners[:, group]
        x, y, z = (picked[..., axis].T @ basis for axis in range(3))
        row = quad_row[group, None] + a
        column = quad_column[group, None] + b
        parts.append((x.ravel(), y.ravel(), z.ravel(), row.ravel(), column.ravel()))
    x, y, z, row, column = (np.concatenate(values) for values in zip(*parts, strict=True))
    return nearest(x, y, z, row, column, side)


def nearest(x: Floats, y: Floats, z: Floats, row: Floats, column: Floats, side: int) -> Fragments:
    """Keep the sample nearest to the viewer in each pixel; drop samples outside the frame."""
    left, up = x.astype(np.int32), y.astype(np.int32)
    inside = (x >= 0) & (left < side) & (y >= 0) & (up < side)
    pixel = ((side - 1 - up) * side + left).astype(np.intp)
    if not inside.all():
        pixel, z, row, column = pixel[inside], z[inside], row[inside], column[inside]
    front = np.full(side * side, -np.inf, dtype=np.float32)
    np.maximum.at(front, pixel, z)
    winners = np.flatnonzero(front[pixel] == z)
    owner = np.full(side * side, -1, dtype=np.intp)
    owner[pixel[winners]] = winners
    covered = np.flatnonzero(owner >= 0)
    won = owner[covered]
    return Fragments(covered, z[won], row[won], column[won])


def vertex_normals(points: Floats) -> Floats:
    """Return unit normals (rows, columns, 3): along-row tangent x along-column tangent."""
    down = np.empty_like(points)
    down[1:-1] = points[2:] - points[:-2]
    down[0], down[-1] = points[1] - points[0], points[-1] - points[-2]
    across = np.empty_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    if np.allclose(points[:, 0], points[:, -1]):
        across[:, 0] = across[:, -1] = points[:, 1] - points[:, -2]
    else:
        across[:, 0] = points[:, 1] - points[:, 0]
        across[:, -1] = points[:, -1] - points[:, -2]
    normal = np.empty_like(points)
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        normal[..., axis] = down[..., one] * across[..., two] - down[..., two] * across[..., one]
    length = np.sqrt(np.einsum("rcx,rcx->rc", normal, normal))
    normalised: Floats = normal / np.maximum(length, 1e-20)[..., None]
    return normalised


def sample_grid(values: Floats, row: Floats, column: Floats) -> Floats:
    """Interpolate (rows, columns, k) bilinearly at n fractional coordinates: (n, k)."""
    rows, columns = values.shape[:2]
    top = np.clip(row.astype(np.intp), 0, rows - 2)
    left = np.clip(column.astype(np.intp), 0, columns - 2)
    a = (row - top)[:, None]
    b = (column - left)[:, None]
    flat = values.reshape(rows * columns, -1)
    first = top * columns + left
    upper = flat[first] * (1 - b) + flat[first + 1] * b
    lower = flat[first + columns] * (1 - b) + flat[first + columns + 1] * b
    blended: Floats = upper * (1 - a) + lower * a
    return blended

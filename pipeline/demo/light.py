"""Lights the fragments of a shell and composes them into a photograph-like image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pipeline.demo.raster import Bools, Floats, Fragments, rasterise, sample_grid, vertex_normals

BACKGROUND = np.array([0.949, 0.943, 0.930], dtype=np.float32)
SHOULDER = 0.8


@dataclass(frozen=True)
class Material:
    """The material of n surface samples: sRGB colour (n, 3), gloss and openness (n,), all in [0,
    1].

    ``gloss`` scales the highlight; ``openness`` is the fraction of ambient light that reaches the
    sample inside a tube or groove.
    """

    colour: Floats
    gloss: Floats
    openness: Floats


@dataclass(frozen=True)
class Surface:
    """A parametric surface: points (rows, columns, 3), x right, y up, z to the viewer.

    ``keep`` (rows - 1, columns - 1) drops quads known to be hidden; ``paint`` takes n fractional
    rows and columns and returns their material.
    """

    points: Floats
    keep: Bools
    paint: Callable[[Floats, Floats], Material]


@dataclass(frozen=True)
class Frame:
    """The position of a shell in its image, as fractions of the image's side.

    The longer side of its bounding box takes ``fill``; its centre is offset by ``right`` and ``up``
    from the image's.
    """

    fill: float = 0.8
    right: float = 0.0
    up: float = 0.0


def unit(x: float, y: float, z: float) -> Floats:
    """Return the unit vector (3,) along (x, y, z)."""
    vector = np.array([x, y, z], dtype=np.float32)
    normalised: Floats = vector / np.sqrt((vector * vector).sum())
    return normalised


KEY = unit(-0.55, 0.62, 0.62)
FILL = unit(0.75, -0.05, 0.55)
SUN = np.array([1.03, 1.0, 0.95], dtype=np.float32)
HALFWAY = unit(*(KEY + unit(0.0, 0.0, 1.0)))


def project_to_frame(surfaces: list[Surface], side: int, frame: Frame) -> list[Floats]:
    """Return the surfaces' points in pixels of a side x side frame."""
    lows, highs = [], []
    for surface in surfaces:
        across, up = (surface.points[:-1, :-1, axis][surface.keep] for axis in (0, 1))
        lows.append((across.min(), up.min()))
        highs.append((across.max(), up.max()))
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    scale = frame.fill * side / float((high - low).max())
    middle = (low + high) / 2 * scale
    centre = (0.5 + frame.right) * side - middle[0], (0.5 + frame.up) * side - middle[1]
    shift = np.array([*centre, 0.0], dtype=np.float32)
    return [surface.points * np.float32(scale) + shift for surface in surfaces]


def box_blur(values: Floats, radius: int) -> Floats:
    """Blur (h, w) with a (2 radius + 1) box, edges repeated."""
    width = 2 * radius + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis, dtype=np.float64)
        upper = np.take(sums, np.arange(width, sums.shape[axis]), axis=axis)
        lower = np.take(sums, np.arange(sums.shape[axis] - width), axis=axis)
        values = ((upper - lower) / width).astype(np.float32)
    return values


def crevices(depth: Floats) -> Floats:
    """Return in [0, 1] how open each pixel of a depth map (h, w) in pixels lies.

    A pixel deeper than the mean of its surroundings lies in a crevice; three sizes of surroundings
    approximate the hemisphere integral of ambient occlusion.
    """
    side = depth.shape[0]
    openness = np.ones_like(depth)
    for share, weight in ((0.012, 0.9), (0.035, 0.7), (0.08, 0.5)):
        radius = max(1, round(side * share))
        sunk = (box_blur(depth, radius) - depth) / radius
        openness *= 1.0 - weight * np.clip(sunk, 0.0, 1.0) * 0.6
    return openness


def cast_shadow(depth: Floats) -> Floats:
    """Return in [0, 1] how much of the key light reaches each pixel of the depth map."""
    side = depth.shape[0]
    lit = np.ones_like(depth)
    direction = KEY / np.hypot(KEY[0], KEY[1])
    reach = side * 0.16
    for step in range(1, 11):
        distance = reach * step / 10
        dx, dy = round(float(direction[0]) * distance), round(float(direction[1]) * distance)
        blocker = np.roll(depth, (dy, -dx), axis=(0, 1))
        above = blocker - depth - float(direction[2]) * distance
        lit = np.minimum(lit, 1.0 - np.clip(above / (0.035 * side), 0.0, 1.0))
    return box_blur(lit, max(1, round(side * 0.012)))


def shade(normal: Floats, coat: Material, openness: Floats, lit: Floats) -> Floats:
    """Return linear light (n, 3) of n samples with unit normals (n, 3)."""
    closed = (1 - openness * coat.openness)[:, None]
    # Light that enters a crevice bounces and takes on the shell's colour.
    open_to = 1 - closed * (1 - 0.5 * coat.colour)
    key = np.clip((normal @ KEY + 0.15) / 1.15, 0.0, None) * (0.35 + 0.65 * lit)
    fill = np.clip((normal @ FILL + 0.3) / 1.3, 0.0, None)
    sky = 0.5 + 0.5 * normal[:, 1]
    direct = 0.92 * key[:, None] * SUN * (0.4 + 0.6 * open_to)
    diffuse = (0.22 * fill + 0.18 + 0.14 * sky)[:, None] * open_to
    halfway = np.clip(normal @ HALFWAY, 0.0, 1.0)
    sheen = coat.gloss * (0.1 * halfway**12 + 0.42 * halfway**70) * (0.3 + 0.7 * lit)
    edge = (1.0 - np.clip(normal[:, 2], 0.0, 1.0)) ** 3
    sheen = sheen + coat.gloss * 0.10 * edge
    linear = coat.colour * coat.colour
    shaded = linear * (direct + diffuse) + sheen[:, None] * open_to
    # Highlights are compressed instead of clipped.
    excess = np.maximum(shaded - SHOULDER, 0) / (1 - SHOULDER)
    rolled: Floats = np.minimum(shaded, SHOULDER) + (1 - SHOULDER) * (1 - np.exp(-excess))
    return rolled


def ground(covered: Bools) -> Floats:
    """Return the lit background (side, side, 3), linear, with a soft contact shadow."""
    side = covered.shape[0]
    small = Image.fromarray(covered).convert("L")
    small = small.resize((side // 4, side // 4), Image.Resampling.BOX)
    shadow = np.zeros((side // 4, side // 4), dtype=np.float32)
    for share, strength in ((0.010, 0.30), (0.022, 0.18)):
        blurred = small.filter(ImageFilter.GaussianBlur(side / 4 * share))
        offset = max(1, round(side / 4 * share * 0.9))
        moved = np.roll(np.asarray(blurred, dtype=np.float32) / 255, (offset, offset), (0, 1))
        shadow = np.maximum(shadow, moved * strength)
    full = Image.fromarray(shadow).resize((side, side), Image.Resampling.BICUBIC)
    dim = 1.0 - np.asarray(full, dtype=np.float32)
    lit: Floats = (BACKGROUND * BACKGROUND) * dim[..., None]
    return lit


def downsample(values: Floats) -> Floats:
    """Return every second pixel of (h, w)."""
    return np.ascontiguousarray(values[::2, ::2])


def photograph(
    surfaces: list[Surface], size: int, frame: Frame, oversample: int = 2
) -> Image.Image:
    """Render surfaces into a size x size RGB image, antialiased by ``oversample`` squared."""
    side = size * oversample
    placed = project_to_frame(surfaces, side, frame)
    depth = np.full(side * side, -np.inf, dtype=np.float32)
    owner = np.full(side * side, -1, dtype=np.int8)
    found: list[Fragments] = []
    for number, (surface, points) in enumerate(zip(surfaces, placed, strict=True)):
        fragments = rasterise(points, surface.keep, side)
        closer = fragments.depth > depth[fragments.pixel]
        depth[fragments.pixel[closer]] = fragments.depth[closer]
        owner[fragments.pixel[closer]] = number
        found.append(fragments)
    covered = (owner >= 0).reshape(side, side)
    floor = float(depth[owner >= 0].min())
    filled = np.where(owner >= 0, depth, floor).reshape(side, side)
    coarse = downsample(filled) / 2
    openness = upsample(crevices(coarse), side)
    lit = upsample(cast_shadow(coarse), side)
    canvas = ground(covered).reshape(-1, 3)
    for number, (surface, points, seen) in enumerate(zip(surfaces, placed, found, strict=True)):
        mine = np.flatnonzero(owner[seen.pixel] == number)
        pixel, row, column = seen.pixel[mine], seen.row[mine], seen.column[mine]
        normal = sample_grid(vertex_normals(points), row, column)
        coat = surface.paint(row, column)
        canvas[pixel] = shade(normal, coat, openness[pixel], lit[pixel])
    return encode_srgb(canvas.reshape(side, side, 3), oversample)


def upsample(values: Floats, side: int) -> Floats:
    """Return (h, w) interpolated to a flat side * side."""
    image = Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).ravel()


def encode_srgb(linear: Floats, oversample: int) -> Image.Image:
    """Average oversample x oversample blocks of linear light and encode as 8-bit RGB."""
    mean = np.zeros_like(linear[::oversample, ::oversample])
    for down in range(oversample):
        for across in range(oversample):
            mean += linear[down::oversample, across::oversample]
    mean *= np.float32(1 / oversample**2)
    return Image.fromarray((np.sqrt(np.clip(mean, 0, 1)) * 255 + 0.5).astype(np.uint8))

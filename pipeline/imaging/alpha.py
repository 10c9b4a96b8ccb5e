"""Transparency: conversions between straight and premultiplied alpha, and backgrounds.

Files hold straight RGBA, as PNG and WebP require. Arithmetic needs premultiplied colours (Porter &
Duff 1984): resizing straight colours would mix those of invisible pixels into the edges.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.crops import Box
from pipeline.imaging.resampling import Pixels

WHITE = (255, 255, 255)
OPAQUE = 255
_HALF, _VISIBLE = 128, 16
_LIGHT, _DARK, _CELL = 255, 216, 8


def has_alpha(pixels: Pixels) -> bool:
    """Return True if pixels (…, channels) have an alpha channel."""
    return bool(pixels.shape[-1] == 4)


def is_opaque(pixels: Pixels) -> bool:
    """Return True if no pixel (…, 4) is transparent, not even in part."""
    return bool((pixels[..., 3] == OPAQUE).all())


def has_transparent_parts(pixels: Pixels) -> bool:
    """Return True if pixels (…, channels) have an alpha channel and some are more transparent than
    opaque."""
    return has_alpha(pixels) and bool((pixels[..., 3] < _HALF).any())


def visible_box(pixels: Pixels, width: int, height: int) -> list[Box]:
    """Return the bounding box, in an image of this size, of the visible pixels (height, width, 4);
    an empty list if there are none."""
    visible = pixels[..., 3] >= _VISIBLE
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not len(rows):
        return []
    x, y = width / pixels.shape[1], height / pixels.shape[0]
    return [Box(columns[0] * x, rows[0] * y, (columns[-1] + 1) * x, (rows[-1] + 1) * y)]


def with_alpha(pixels: Pixels) -> Pixels:
    """Return gray or colour pixels (height, width, channels) as opaque RGBA; RGBA is returned
    unchanged."""
    if has_alpha(pixels):
        return pixels
    rgba = np.full((*pixels.shape[:2], 4), OPAQUE, np.uint8)
    rgba[..., :3] = pixels
    return rgba


def premultiply(pixels: Pixels) -> Pixels:
    """Multiply the colours of straight RGBA (…, 4) by alpha."""
    if is_opaque(pixels):
        return pixels
    result = pixels.copy()
    product = pixels[..., :3].astype(np.uint16) * pixels[..., 3:]
    result[..., :3] = (product + 127) // 255
    return result


def unpremultiply(pixels: Pixels) -> Pixels:
    """Divide premultiplied colours (…, 4) by alpha: the inverse of `premultiply`. Colours that
    exceed alpha are reduced to it; hidden ones are defined."""
    if is_opaque(pixels):
        return pixels
    alpha = pixels[..., 3:]
    colours = np.minimum(pixels[..., :3], alpha).astype(np.float32)
    result = pixels.copy()
    result[..., :3] = np.rint(colours * 255 / np.maximum(alpha, 1))
    return define_hidden_colours(result)


def define_hidden_colours(pixels: Pixels) -> Pixels:
    """Give the fully transparent pixels of straight RGBA (…, 4) the mean of the visible colours,
    weighted by alpha.

    It cannot be seen, it compresses to nothing, and a program that resizes without premultiplying
    draws no dark line around the object.
    """
    hidden = pixels[..., 3] == 0
    if not hidden.any():
        return pixels
    weight = pixels[..., 3:].astype(np.float64)
    weighted = (pixels[..., :3] * weight).reshape(-1, 3).sum(0)
    result = pixels.copy()
    result[hidden, :3] = np.rint(weighted / max(1.0, float(weight.sum())))
    return result


def over(pixels: Pixels, background: tuple[int, ...] | Pixels) -> Pixels:
    """Composite premultiplied RGBA (…, 4) over a colour or an opaque image: (…, 3)."""
    behind = np.asarray(background, np.uint16) * (OPAQUE - pixels[..., 3:]).astype(np.uint16)
    result: Pixels = np.minimum(pixels[..., :3] + (behind + 127) // 255, 255).astype(np.uint8)
    return result


def over_white(pixels: Pixels) -> Pixels:
    """Composite straight RGBA (…, 4) over white; pixels without alpha are returned unchanged."""
    return over(premultiply(pixels), WHITE) if has_alpha(pixels) else pixels


def over_checkerboard(pixels: Pixels) -> Pixels:
    """Composite premultiplied RGBA (height, width, 4) over a light checkerboard, the usual sign of
    transparency: (height, width, 3)."""
    return over(pixels, _checkerboard(*pixels.shape[:2]))


@lru_cache(maxsize=4)
def _checkerboard(height: int, width: int) -> Pixels:
    rows, columns = np.arange(height)[:, None] // _CELL, np.arange(width)[None] // _CELL
    shade: NDArray[np.bool_] = (rows + columns) % 2 == 1
    return np.where(shade, _DARK, _LIGHT).astype(np.uint8)[..., None].repeat(3, axis=2)


def parse_colour(text: str) -> tuple[int, int, int]:
    """Return the (red, green, blue) of "#rrggbb".

    Raises:
        ValueError: it is not a colour.
    """
    values = bytes.fromhex(text.removeprefix("#"))
    if len(values) != 3 or not text.startswith("#"):
        raise ValueError("not #rrggbb")
    return values[0], values[1], values[2]

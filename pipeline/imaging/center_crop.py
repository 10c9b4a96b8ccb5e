"""The central square of an image at a given size, with the cheapest sufficient decode."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import simplejpeg

from pipeline.imaging.crops import center_box
from pipeline.imaging.images import decoded
from pipeline.imaging.jpeg_header import read_jpeg_header
from pipeline.imaging.limits import ImageLimits
from pipeline.imaging.pixels import Mode, decode_jpeg, divisor_for, hold_for_jpeg
from pipeline.imaging.resampling import Pixels, resize

OVERSAMPLE = 1.25
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result is larger than the target by this
factor.

It is lower than for samples (`pixels.OVERSAMPLE`), because speed matters while downloading.
"""


@dataclass(frozen=True)
class CenterSquare:
    """The central square of an image as (side, side, 1 or 3) uint8, and the properties of the
    file."""

    pixels: Pixels
    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


def center_square(
    data: bytes, side: int, max_pixels: int, limits: ImageLimits | None = None
) -> CenterSquare:
    """Decode an image and resize its central square to `side` × `side` pixels (Lanczos).

    Args:
        limits: limits on the size; replaces `max_pixels`.

    Raises:
        ImageError: it is not an image, has too many pixels, or is animated or damaged.
    """
    limits = limits or ImageLimits(max_pixels)
    header = read_jpeg_header(data)
    if header is not None and header.plain and header.orientation == 1:
        square = _decode_plain_jpeg(data, side, limits)
        if square is not None:
            return square
    with decoded(data, limits, lambda short: decode_side(short, side)) as opened:
        image = opened.image
        pixels = np.asarray(image)
        pixels = pixels[:, :, None] if image.mode == "L" else pixels
        full = opened.width, opened.height
        square_pixels = _resize_square(pixels, full, side)
        return CenterSquare(square_pixels, opened.format, opened.mode, *full, opened.notes)


def decode_side(short_side: int, side: int) -> int:
    """Return the short side at which to decode an image of `short_side` for a target of `side`."""
    return math.floor(short_side / divisor_for(OVERSAMPLE * side / short_side))


def _decode_plain_jpeg(data: bytes, side: int, limits: ImageLimits) -> CenterSquare | None:
    """Decode with libjpeg-turbo; None if it reports an error (Pillow then decides)."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        limits.check(width, height)
        mode: Mode = "L" if space == "Gray" else "RGB"
        scale = OVERSAMPLE * side / min(width, height)
        with hold_for_jpeg(data, (width, height), scale):
            pixels = decode_jpeg(data, mode, (width, height), scale, strict=True)
            return CenterSquare(
                _resize_square(pixels, (width, height), side), "JPEG", mode, width, height
            )
    except ValueError:
        return None


def _resize_square(pixels: Pixels, full: tuple[int, int], side: int) -> Pixels:
    """Return the central square of a decoded image whose full size is `full` (width, height).

    The square is computed in the full image: the size of a reduced image is rounded up, so its
    centre is slightly off.
    """
    scale = 1.0 / round(full[0] / pixels.shape[1])
    return resize(pixels, center_box(*full, 1.0).scaled(scale), (side, side))


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode (height, width, 3) pixels as a JPEG without chroma subsampling, (…, 1) as a gray
    JPEG."""
    gray = pixels.shape[2] == 1
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, "GRAY" if gray else "RGB", "Gray" if gray else "444"
    )
    return data

"""The centre square of an image, at the size that is kept, from the cheapest decode that does."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions
from cykooz_resizer.rust_lib import RustResizer
from numpy.typing import NDArray

from pipeline.images import check_size, open_picture
from pipeline.pictures.jpeg_header import read_jpeg_header

Pixels = NDArray[np.uint8]

OVERSAMPLE = 1.25
"""A JPEG decoded at 1/2, 1/4 or 1/8 must still be larger than what is made of it by this factor.

The result is then within 50 dB (median) of a full decode, at 64 and at 256 pixels. The scales
between (3/8, 5/8, …) have no vector code and gain nothing.
"""


_REACH = 3
"""Lanczos with three lobes reaches so many pixels of the result."""


class _Local(threading.local):
    """One resizer a thread: it keeps buffers."""

    def __init__(self) -> None:
        self.resizer = RustResizer()


_local = _Local()


@dataclass(frozen=True)
class Square:
    """The centre square of an image as (side, side, 1 or 3) uint8, and what the file was."""

    pixels: Pixels
    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


def center_square(data: bytes, side: int, max_pixels: int) -> Square:
    """Decode an image and make `side` × `side` pixels of its centre, antialiased (Lanczos).

    Raises:
        ImageError: no image, too many pixels, animated, broken.
    """
    header = read_jpeg_header(data)
    if header is not None and header.plain and header.orientation == 1:
        square = _plain_jpeg(data, side, max_pixels)
        if square is not None:
            return square
    picture = open_picture(
        data, max_pixels=max_pixels, draft_to=lambda short: decode_side(short, side)
    )
    image = picture.image
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if image.mode == "L" else pixels
    full = picture.width, picture.height
    square_pixels = _resized(pixels, full, side)
    return Square(square_pixels, picture.format, picture.mode, *full, picture.notes)


def decode_side(short_side: int, side: int) -> int:
    """The short side at which to decode an image of `short_side` to make `side` of it."""
    return math.floor(short_side / _divisor(short_side, side))


def _divisor(short_side: int, side: int) -> int:
    return next((one for one in (8, 4, 2) if short_side / one >= OVERSAMPLE * side), 1)


def _plain_jpeg(data: bytes, side: int, max_pixels: int) -> Square | None:
    """By libjpeg-turbo alone; None where it finds fault with the file (Pillow judges then)."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_size(width, height, max_pixels)
        gray = space == "Gray"
        divisor = _divisor(min(width, height), side)
        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if gray else "RGB",
            min_width=-(-width // divisor),
            min_height=-(-height // divisor),
        )
    except ValueError:
        return None
    square = _resized(pixels, (width, height), side)
    return Square(square, "JPEG", "L" if gray else "RGB", width, height)


def _resized(pixels: Pixels, full: tuple[int, int], side: int) -> Pixels:
    """The centre square of a decoded image whose full size is `full` (width, height).

    The square is laid in the full image: a reduced one is rounded up, so its middle is not
    quite the middle.
    """
    rows, columns, channels = pixels.shape
    scale = 1.0 / round(full[0] / columns)
    short = min(full) * scale
    left, top = (full[0] * scale - short) / 2, (full[1] * scale - short) / 2
    short = min(short, columns - left, rows - top)
    # Nothing further away than the filter reaches is copied.
    margin = math.ceil(_REACH * max(1.0, short / side))
    first_row, first_column = max(0, int(top) - margin), max(0, int(left) - margin)
    pixels = pixels[
        first_row : math.ceil(top + short) + margin,
        first_column : math.ceil(left + short) + margin,
    ]
    rows, columns, channels = pixels.shape
    left, top = left - first_column, top - first_row
    kind = PixelType.U8x3 if channels == 3 else PixelType.U8
    source = ImageData(columns, rows, kind, pixels.tobytes())
    result = ImageData(side, side, kind)
    options = ResizeOptions(ResizeAlg.convolution(FilterType.lanczos3))
    options.crop_box = CropBox(left, top, short, short)
    _local.resizer.resize(source.rust_image, result.rust_image, options.rust_options)
    made = np.frombuffer(result.get_buffer(), dtype=np.uint8)
    return made.reshape(side, side, channels)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """(height, width, 3) pixels as a JPEG without colour subsampling, (…, 1) as a gray one."""
    gray = pixels.shape[2] == 1
    data: bytes = simplejpeg.encode_jpeg(
        pixels, quality, "GRAY" if gray else "RGB", "Gray" if gray else "444"
    )
    return data

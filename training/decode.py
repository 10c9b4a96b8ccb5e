"""From an image file's bytes to pixels of the wanted size."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

ENDINGS = ("jpg", "jpeg", "png", "webp")
"""The endings of image members, in the order they are looked for."""

Pixels = NDArray[np.uint8]


def decode(data: bytes, ending: str, height: int, width: int, channels: int) -> Pixels:
    """The image as uint8 (height, width, channels).

    A larger image of the same shape is averaged down (box filter); gray is spread to colour and
    colour weighed to gray where `channels` asks for it.

    Raises:
        ValueError: not an image, or smaller than asked for, or of another shape.
    """
    pixels = _jpeg(data, channels) if ending in ("jpg", "jpeg") else _pillow(data, channels)
    if pixels.shape[:2] != (height, width):
        pixels = _shrink(pixels, height, width)
    return pixels


def _jpeg(data: bytes, channels: int) -> Pixels:
    space = "RGB" if channels == 3 else "GRAY"
    pixels: Pixels = simplejpeg.decode_jpeg(data, space)
    return pixels


def _pillow(data: bytes, channels: int) -> Pixels:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    except OSError as error:
        raise ValueError(str(error)) from None
    return pixels if channels == 3 else pixels[:, :, None]


def _shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    have_height, have_width, channels = pixels.shape
    if have_height < height or have_width < width or have_height * width != have_width * height:
        raise ValueError(f"is {have_width}×{have_height} px, wanted {width}×{height}")
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return small if channels == 3 else small[:, :, None]

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


def decode_into(out: Pixels, data: bytes, ending: str) -> None:
    """Write the image to `out`, uint8 (height, width, channels).

    A larger image of the same shape is averaged down (box filter); gray is spread to colour and
    colour weighed to gray where `out` has other channels.

    Raises:
        ValueError: not an image, or smaller than asked for, or of another shape.
    """
    height, width, channels = out.shape
    if ending in ("jpg", "jpeg"):
        space = "RGB" if channels == 3 else "GRAY"
        try:  # mostly it fits; asking for its size first would parse the header twice
            if simplejpeg.decode_jpeg(data, space, buffer=out).shape == out.shape:
                return
        except ValueError:  # too large for the buffer, or no image
            pass
        pixels: Pixels = simplejpeg.decode_jpeg(data, space)
    else:
        pixels = _pillow(data, channels)
    out[...] = pixels if pixels.shape[:2] == (height, width) else _shrink(pixels, height, width)


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

"""Pixels of an original, decoded no larger than a sample needs, and samples rendered from them.

A JPEG can be decoded at a fraction of its size for a fraction of the cost. The result stays
within 47 dB (median) of the full decode as long as what is decoded is `OVERSAMPLE` times the
sample or more, so no smaller fraction is ever used.
"""

from __future__ import annotations

import math
import struct
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops import Box
from pipeline.images import open_image

Mode = Literal["L", "RGB"]
Pixels = NDArray[np.uint8]

OVERSAMPLE = 1.5
MAX_PIXELS = 1 << 30
"""The download has judged the size; this only bounds a file that is not the one recorded."""


class Original:
    """The pixels of one image, upright and in sRGB, at whatever scale is asked for.

    Args:
        data: the file.
        size: (width, height) in pixels, upright.
        mode: "L" for gray, "RGB" for colour.
    """

    def __init__(self, data: bytes, size: tuple[int, int], mode: Mode) -> None:
        self._data = data
        self.size = size
        self.mode: Mode = mode
        self._plain = is_plain_jpeg(data)
        self._scale = 0.0
        self._decoded: Image.Image | None = None

    def at_least(self, scale: float) -> Image.Image:
        """The whole image at `scale` of its size or more (1 at most).

        Raises:
            ImageError: the file cannot be decoded.
        """
        scale = min(1.0, scale)
        if self._decoded is None or self._scale < scale:
            self._decoded = self._fast(scale) or self._safe(scale)
            self._scale = scale
        return self._decoded

    def _fast(self, scale: float) -> Image.Image | None:
        """By libjpeg-turbo alone; None where that does not do."""
        if not self._plain:
            return None
        try:
            pixels = simplejpeg.decode_jpeg(
                self._data,
                "GRAY" if self.mode == "L" else "RGB",
                min_width=math.ceil(self.size[0] * scale),
                min_height=math.ceil(self.size[1] * scale),
                strict=False,
            )
        except ValueError:
            return None
        return Image.fromarray(pixels[:, :, 0] if self.mode == "L" else pixels)

    def _safe(self, scale: float) -> Image.Image:
        short = math.ceil(min(self.size) * scale)
        image = open_image(self._data, max_pixels=MAX_PIXELS, draft_to=short)
        return image if image.mode == self.mode else image.convert(self.mode)


def scale_for(box: Box, width: int, height: int) -> float:
    """The fraction of its size at which an image must be decoded to make a sample of `box`."""
    return OVERSAMPLE * max(width / box.width, height / box.height)


def render(original: Original, box: Box, size: tuple[int, int]) -> Pixels:
    """The part `box` of an image as (height, width, channels) uint8, antialiased (Lanczos).

    What lies outside the image is filled with the colour of the image's border (the median).

    Args:
        size: (height, width) of the result.
    """
    height, width = size
    image = original.at_least(scale_for(box, width, height))
    part = box.within(*original.size)
    left = round((part.left - box.left) / box.width * width)
    top = round((part.top - box.top) / box.height * height)
    right = max(left + 1, round((part.right - box.left) / box.width * width))
    bottom = max(top + 1, round((part.bottom - box.top) / box.height * height))
    source = part.scaled(image.width / original.size[0], image.height / original.size[1])
    source = source.within(*image.size)
    resized = image.resize(
        (right - left, bottom - top),
        Image.Resampling.LANCZOS,
        box=(source.left, source.top, source.right, source.bottom),
    )
    if resized.size != (width, height):
        canvas = Image.new(original.mode, (width, height), border_colour(image))
        canvas.paste(resized, (left, top))
        resized = canvas
    pixels = np.asarray(resized)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def border_colour(image: Image.Image) -> int | tuple[int, ...]:
    """The median colour of an image's border, as Pillow takes it."""
    median = [int(value) for value in np.median(border(np.asarray(image)), axis=0)]
    return median[0] if image.mode == "L" else tuple(median)


def border(pixels: Pixels) -> Pixels:
    """The pixels along the four sides, a 50th of the short side deep, as (n, channels)."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    depth = max(1, min(pixels.shape[:2]) // 50)
    sides = (
        pixels[:depth], pixels[-depth:],
        pixels[depth:-depth, :depth], pixels[depth:-depth, -depth:],
    )  # fmt: skip
    return np.concatenate([side.reshape(-1, pixels.shape[2]) for side in sides])


def is_plain_jpeg(data: bytes) -> bool:
    """Whether it is a gray or YCbCr JPEG, upright and without a colour profile.

    Then nothing is left to do after decoding; everything else goes through `open_image`.
    """
    if data[:2] != b"\xff\xd8":
        return False
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        body = data[place + 4 : place + 2 + length]
        if marker == 0xDA:  # the scan begins: nothing was against it
            return True
        if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            return False
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and exif_orientation(body[6:]) != 1:
            return False
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) > 11 and body[11] != 1:
            return False
        frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if frame and (len(body) < 6 or body[0] != 8 or body[5] not in (1, 3)):
            return False
        place += 2 + length
    return False


def exif_orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, of an Exif block; 1 where it says nothing, 0 where it is broken."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _kind, _count, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 0
    return 1

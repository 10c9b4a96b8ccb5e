"""Lanczos resizing of pixels, in sRGB values or in linear light."""

from __future__ import annotations

import functools
import math
import threading
from typing import TypeVar

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions
from cykooz_resizer.rust_lib import RustResizer
from numpy.typing import NDArray

from pipeline.imaging.crops import Box

Pixels = NDArray[np.uint8]
"""(height, width, channels), channels 1, 3 or 4 (RGBA, straight unless stated)."""


T = TypeVar("T", np.uint8, np.uint16)


_LANCZOS = ResizeAlg.convolution(FilterType.lanczos3)
_BYTES = {1: PixelType.U8, 3: PixelType.U8x3, 4: PixelType.U8x4}
_WORDS = {1: PixelType.U16, 3: PixelType.U16x3, 4: PixelType.U16x4}
"""The resizer's types of pixels with 8 and 16 bits, by channels; those with four have alpha."""


def resize(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Resize the region `box` of an image (Lanczos 3, antialiased) to `size` (height, width).

    Colours of RGBA are multiplied by alpha before and divided by it afterwards.
    """
    return _convolve(pixels, box, size, _BYTES[pixels.shape[2]])


def resize_linear(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Resize like `resize`, but in linear light instead of sRGB values (IEC 61966-2-1)."""
    to_light, to_srgb = _light_tables()
    light = to_light[pixels]
    if pixels.shape[2] == 4:
        light[..., 3] = pixels[..., 3] * np.uint16(257)
    made = _convolve(light, box, size, _WORDS[light.shape[2]])
    resized = to_srgb[made]
    if pixels.shape[2] == 4:
        resized[..., 3] = np.rint(made[..., 3] / 257)
    return resized


@functools.lru_cache(maxsize=1)
def _light_tables() -> tuple[NDArray[np.uint16], Pixels]:
    """Return lookup tables from sRGB values to linear light (0 to 65535), and back."""
    srgb = np.arange(256) / 255
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    every = np.arange(65536) / 65535
    back = np.where(every <= 0.0031308, 12.92 * every, 1.055 * every ** (1 / 2.4) - 0.055)
    return np.rint(light * 65535).astype(np.uint16), np.rint(back * 255).astype(np.uint8)


def _convolve(pixels: NDArray[T], box: Box, size: tuple[int, int], kind: PixelType) -> NDArray[T]:
    rows, columns, channels = pixels.shape
    part = box.within(columns, rows)
    reach_x = math.ceil(3 * max(1.0, part.width / size[1])) + 1
    reach_y = math.ceil(3 * max(1.0, part.height / size[0])) + 1
    left, top = max(0, int(part.left) - reach_x), max(0, int(part.top) - reach_y)
    right, bottom = math.ceil(part.right) + reach_x, math.ceil(part.bottom) + reach_y
    cut = pixels[top:bottom, left:right]  # the filter's input; the resizer copies it
    source = ImageData(cut.shape[1], cut.shape[0], kind, cut.tobytes())
    result = ImageData(size[1], size[0], kind)
    options = ResizeOptions(_LANCZOS)
    options.crop_box = CropBox(part.left - left, part.top - top, part.width, part.height)
    _local.resizer.resize(source.rust_image, result.rust_image, options.rust_options)
    return np.frombuffer(result.get_buffer(), pixels.dtype).reshape(*size, channels)


class _Local(threading.local):
    """One resizer per thread, because it keeps buffers."""

    def __init__(self) -> None:
        self.resizer = RustResizer()


_local = _Local()

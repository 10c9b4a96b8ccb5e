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
"""(height, width, channels), channels 1 or 3."""


T = TypeVar("T", np.uint8, np.uint16)


_LANCZOS = ResizeAlg.convolution(FilterType.lanczos3)


def resize(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Resize the region `box` of an image (Lanczos 3, antialiased) to `size` (height, width)."""
    return _convolve(pixels, box, size, PixelType.U8 if pixels.shape[2] == 1 else PixelType.U8x3)


def resize_linear(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Resize like `resize`, but in linear light instead of sRGB values (IEC 61966-2-1)."""
    to_light, to_srgb = _light_tables()
    light = to_light[pixels]
    made = _convolve(light, box, size, PixelType.U16 if light.shape[2] == 1 else PixelType.U16x3)
    return to_srgb[made]


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

"""Images that are stored as raw pixels: converts them to PNG."""

from __future__ import annotations

import io
import os
from typing import IO

import numpy as np
from PIL import Image

from pipeline.imaging.limits import ImageError


def read_png(file: IO[bytes], offset: int, shape: tuple[int, ...], _most: int) -> bytes:
    """Return the raw pixels at an offset of a file as a PNG.

    Args:
        shape: (height, width), or (3, height, width) for planes of red, green and blue.

    Raises:
        ImageError: the file ends before.
    """
    size = int(np.prod(shape))
    data = os.pread(file.fileno(), size, offset)
    if len(data) < size:
        raise ImageError("truncated", f"the file ends before byte {offset + size}")
    return encode_png(np.frombuffer(data, np.uint8).reshape(shape))


def encode_png(pixels: np.ndarray) -> bytes:
    """Return (height, width) or (3, height, width) pixels, uint8, as a PNG."""
    if pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=6)
    return file.getvalue()

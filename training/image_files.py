"""Image files from outside, read as training reads the images of shards."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pipeline.contract import UserError, describe_os_error, open_regular
from training.grid import Pixels
from training.image_shape import ImageShape
from training.streaming.decode import decode_fitted

EXTENSIONS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
"""Files with these extensions are the images of a folder."""
MOST_BYTES = 64 << 20


def find_images(paths: list[Path]) -> list[Path]:
    """Return the files among the paths, and the images of the folders among them, sorted by name.

    Raises:
        UserError: a path does not exist, or a folder has no images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in EXTENSIONS)
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
        if not inside:
            raise UserError(f"{path}: no images there ({', '.join(sorted(EXTENSIONS))})")
        found += inside
    return found


def read_image(path: Path, shape: ImageShape, fit: str) -> Pixels:
    """Read an image file: see `decode_image`.

    Raises:
        UserError: it cannot be read as an image; the message names it.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None
    try:
        return decode_image(data, shape, fit)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def decode_image(data: bytes, shape: ImageShape, fit: str) -> Pixels:
    """Decode an upright image in sRGB into `shape`, uint8 (height, width, channels), resized by
    `fit` (see `DataOptions`; empty: `crop`).

    Raises:
        ValueError: it cannot be used.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    out: Pixels = np.empty((shape.height, shape.width, shape.channels), dtype=np.uint8)
    decode_fitted(out, data, "", fit or "crop")
    return out

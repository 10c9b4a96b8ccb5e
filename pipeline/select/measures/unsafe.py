"""Scores nudity in images.

The network is the one that the package `nudenet` contains; nothing of the package is imported. Its
metadata names the MIT licence, its licence file is the AGPL 3.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.resampling import Pixels
from pipeline.select.measures.onnx_models import load_model

_SIDE = 320
_BOX_ROWS = 4
"""The first rows of the network's output are the box; then comes one row per class."""
EXPOSED = (2, 3, 4, 6, 14)
"""Classes of `nudenet`: exposed buttocks, female breast, female genitalia, anus, male genitalia."""


def unsafe_score(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return the highest score of an exposed body part, (n, 1), from 0 to 1.

    Args:
        images: uint8 (height, width, 3) of any sizes.

    The entry point `unsafe` of group `shellgan.measures`.
    """
    network = load_model("nudenet", "320n.onnx", "unsafe")
    rows = [_BOX_ROWS + number for number in EXPOSED]
    values = [network(_network_input(pixels))[0, rows].max() for pixels in images]
    return np.array(values, np.float32).reshape(-1, 1)


def _network_input(pixels: Pixels) -> NDArray[np.float32]:
    """Return (1, 3, side, side), red first, from 0 to 1: the image at the upper left, on black."""
    image = Image.fromarray(pixels)
    scale = _SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (_SIDE, _SIDE))
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR))
    values = np.asarray(square, np.float32) / 255
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

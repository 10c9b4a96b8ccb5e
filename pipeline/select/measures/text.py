"""Measures how much of an image is covered by text: captions, watermarks, labels.

The networks are those of PaddleOCR (PP-OCRv6, Apache-2.0), which the package `rapidocr` contains;
nothing of the package is imported. The detector (Liao et al., AAAI 2020: differentiable
binarization) gives regions that look like text. An object on a plain background also does, so only
regions in which the recogniser reads characters are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.components import label_regions
from pipeline.imaging.resampling import Pixels
from pipeline.select.measures.onnx_models import Model, load_model

SIDE = 640
"""Longer side of the detector's input in pixels."""
_DETECTED = 0.3
_UNCLIP = 1.6
_MOST_REGIONS = 12
_MIN_PIXELS = 24
_LINE = 48
_LONGEST = 640
_ELONGATED = 1.5
CONFIDENCE = 0.7
CHARACTERS = 4


def text_area(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return the fraction of each image that is covered by lines of text, (n, 1), from 0 to 1.

    A line counts if the recogniser reads at least `CHARACTERS` characters in it, with a mean
    confidence of at least `CONFIDENCE`. At most the `_MOST_REGIONS` largest regions are read.

    Args:
        images: uint8 (height, width, 3) of any sizes.

    The entry point `text` of group `shellgan.measures`.
    """
    detector = load_model("rapidocr", "models/PP-OCRv6_det_small.onnx", "text")
    reader = load_model("rapidocr", "models/PP-OCRv6_rec_small.onnx", "text")
    values = [_measure(Image.fromarray(pixels), detector, reader) for pixels in images]
    return np.array(values, np.float32).reshape(-1, 1)


def _measure(image: Image.Image, detector: Model, reader: Model) -> float:
    scale = SIDE / max(image.size)
    width, height = (max(32, round(side * scale / 32) * 32) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    mask = detector(_network_input(resized))[0, 0] > _DETECTED
    area = 0.0
    for box in _boxes(mask):
        confidence, characters = _read(reader(_network_input(_cut(resized, box)))[0])
        if confidence >= CONFIDENCE and characters >= CHARACTERS:
            area += box.width * box.height
    return min(1.0, area / (width * height))


def _network_input(image: Image.Image) -> NDArray[np.float32]:
    """Return (1, 3, height, width), blue first, from -1 to 1."""
    pixels = np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


class _Box:
    """A rotated rectangle: its centre, the direction of its longer side, its two sides."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        middle = points.mean(axis=0)
        spread, axes = np.linalg.eigh(np.cov((points - middle).T) + np.eye(2) * 1e-3)
        along = axes[:, 1] if spread[1] > _ELONGATED**2 * spread[0] else np.array([1.0, 0.0])
        self.along = along if along[0] >= 0 else -along
        self.across = np.array([-self.along[1], self.along[0]])
        spans = (points - middle) @ np.stack([self.along, self.across], axis=1)
        low, high = spans.min(axis=0) - 0.5, spans.max(axis=0) + 0.5
        self.middle = middle + (low + high) / 2 @ np.stack([self.along, self.across])
        width, height = high - low
        # The detector's regions are shrunk; this reverses it.
        margin = _UNCLIP * width * height / (width + height)
        self.width, self.height = float(width + margin), float(height + margin)


def _boxes(mask: NDArray[np.bool_]) -> list[_Box]:
    """Return the boxes of the largest regions."""
    labels = label_regions(mask)
    sizes = np.bincount(labels.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[:_MOST_REGIONS]
    return [
        _Box(np.argwhere(labels == number + 1)[:, ::-1].astype(np.float64))
        for number in largest
        if sizes[number] >= _MIN_PIXELS
    ]


def _cut(image: Image.Image, box: _Box) -> Image.Image:
    """Return the box as an upright line of text, `_LINE` pixels high."""
    width = int(np.clip(round(_LINE * box.width / box.height), _LINE, _LONGEST))
    x, y = box.along * box.width / width, box.across * box.height / _LINE
    corner = box.middle - x * width / 2 - y * _LINE / 2
    matrix = (x[0], y[0], corner[0], x[1], y[1], corner[1])
    return image.transform(
        (width, _LINE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


def _read(probabilities: NDArray[np.float32]) -> tuple[float, int]:
    """Return the mean confidence of the characters that the recogniser reads, and their number.

    Args:
        probabilities: (steps, characters) of connectionist temporal classification; the first
            character is blank.
    """
    best = probabilities.argmax(axis=1)
    new = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
    if not new.any():
        return 0.0, 0
    return float(probabilities.max(axis=1)[new].mean()), int(new.sum())

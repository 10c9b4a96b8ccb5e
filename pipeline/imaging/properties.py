"""Measures the image properties that are recorded at download."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.images import DecodedImage

MEASURE_SIDE = 256
"""The short side, in pixels, at which sharpness and contrast are measured; smaller images are
measured at their own size."""

_FILL, _FILL_TOLERANCE, _FILL_SHARE = 128, 4, 0.98
"""The gray level with which decoders fill a JPEG that ended early. If the image is stored again,
this share of a row's pixels stays within the tolerance: it finds 58 of 59 cut photographs stored
again as WebP of quality 50, and nothing in 3,293 whole images."""


@dataclass(frozen=True)
class ImageProperties:
    """The recorded properties of an image; see `OriginalRecord`. `notes` lists oddities."""

    format: str
    mode: str
    width: int
    height: int
    phash: str
    sharpness: float
    contrast: float
    detail_hash: str
    missing_part: float
    notes: tuple[str, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """Return the fields of an `OriginalRecord`."""
        return {name: value for name, value in vars(self).items() if name != "notes"}


def measure_image(image: DecodedImage) -> ImageProperties:
    """Measure the properties of a decoded image."""
    gray = image.image.convert("L")
    short = min(gray.size)
    if short > MEASURE_SIDE:
        scale = MEASURE_SIDE / short
        size = (max(1, round(gray.width * scale)), max(1, round(gray.height * scale)))
        gray = gray.resize(size, Image.Resampling.BOX)
    values = np.asarray(gray)
    return ImageProperties(
        format=image.format,
        mode=image.mode,
        width=image.width,
        height=image.height,
        phash=perceptual_hash(gray),
        sharpness=round(_laplacian_variance(values), 3),
        contrast=round(_deviation(gray.histogram()), 3),
        detail_hash=detail_hash(gray),
        missing_part=round(_missing_part(image.image, values), 3),
        notes=image.notes,
    )


def _missing_part(image: Image.Image, gray: NDArray[np.uint8]) -> float:
    """Return the fraction of an image that decoders filled with gray because its file ended early,
    measured at the size of `gray`, its (height, width) gray levels.

    These are the rows or columns at one edge that have this colour, if those at the opposite edge
    do not: the end of the file can be at any edge of a rotated image.
    """
    found = _filled_part(gray[:, :, None])
    if found and image.mode != "L":
        small = image.convert("RGB").resize(gray.shape[::-1], Image.Resampling.BOX)
        return _filled_part(np.asarray(small))
    return found


def _filled_part(pixels: NDArray[np.uint8]) -> float:
    near = (np.abs(pixels.astype(np.int16) - _FILL) <= _FILL_TOLERANCE).all(axis=2)
    parts = [0.0]
    for axis in (1, 0):
        filled = near.mean(axis=axis) >= _FILL_SHARE
        if filled[0] != filled[-1]:
            inwards = filled if filled[0] else filled[::-1]
            parts.append(float(inwards.argmin()) / len(filled))
    return max(parts)


def _laplacian_variance(gray: NDArray[np.uint8]) -> float:
    """Return the variance of the 4-neighbour Laplacian over the inner pixels (Pech-Pacheco et al.,
    2000), which is low if the image is out of focus."""
    if min(gray.shape) < 3:
        return 0.0
    wide = gray.astype(np.int16)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1]
    laplacian += wide[1:-1, :-2]
    laplacian += wide[1:-1, 2:]
    laplacian -= 4 * wide[1:-1, 1:-1]
    exact = laplacian.ravel().astype(np.float64)
    # no dot product: BLAS would start threads for it, and many images are measured in parallel
    squares = float(np.einsum("i,i->", exact, exact))
    return squares / exact.size - (float(exact.sum()) / exact.size) ** 2


def _deviation(histogram: list[int]) -> float:
    """Return the standard deviation of gray values, given their histogram."""
    counts, level = np.array(histogram, np.float64), np.arange(256.0)
    mean = (counts @ level) / counts.sum()
    return float(np.sqrt(counts @ (level - mean) ** 2 / counts.sum()))


def perceptual_hash(image: Image.Image) -> str:
    """Return a 64-bit hash in hex. Its bits state which of the 8 × 8 lowest DCT coefficients of the
    32 × 32 gray image are above their median (pHash; Zauner, 2010)."""
    return _hash(image, 8)


def detail_hash(image: Image.Image) -> str:
    """Return a 256-bit hash in hex, like `perceptual_hash` of the 16 × 16 lowest coefficients of
    the 64 × 64 gray image. It distinguishes images that differ only in detail, such as two similar
    objects in the same pose."""
    return _hash(image, 16)


def _hash(image: Image.Image, side: int) -> str:
    small = image.convert("L").resize((4 * side, 4 * side), Image.Resampling.LANCZOS)
    rows = _dct_rows(side)
    low = rows @ np.asarray(small, dtype=np.float64) @ rows.T
    ranked, half = np.sort(low, axis=None), low.size // 2
    bits = np.packbits((low > (ranked[half - 1] + ranked[half]) / 2).ravel())
    return bits.tobytes().hex()


@functools.lru_cache(maxsize=2)
def _dct_rows(count: int) -> NDArray[np.float64]:
    """Return the `count` lowest rows of the DCT-II matrix of length 4 × `count`, not normalised."""
    k, n = np.arange(count)[:, None], np.arange(4 * count)[None, :]
    return np.asarray(2.0 * np.cos(np.pi * k * (2 * n + 1) / (8.0 * count)))

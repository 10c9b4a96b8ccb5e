"""The one object on a plain or slowly varying ground: where it is, and another ground for it.

The ground's colour is modelled from the image's border, as a quadratic in x and y fitted without
its outliers. What differs from the model is the object; the largest region of it counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.components import Mask, largest_region
from pipeline.imaging.crops import Box
from pipeline.imaging.pixels import Pixels, resize

Field = NDArray[np.float64]

DETECT_SIDE = 128
"""Objects are looked for at this short side, in pixels."""

_BORDER = 0.04
_FITS = 3
_PLAIN_NOISE = 10.0
"""The border of a plain ground strays from its model by no more than this (values 0 to 255)."""
_PLAIN_SHARE = 0.5
"""At least this share of the border must be ground."""
_LEAST_STEP = 14.0
"""What differs by less than this is ground, however even the ground is."""
_NOISES = 5.0
_LEAST_AREA, _MOST_AREA = 0.01, 0.95
_MOST_OF_IT = 0.6
"""At least this share of all that differs from the ground must be the one object."""


@dataclass(frozen=True)
class BackgroundModel:
    """The modelled ground of an image and what lies on it.

    `coefficients` are of `_basis`, (6, channels); a pixel that differs by more than `step` is not
    ground. `mask` is the object at detection size, without holes.
    """

    coefficients: Field
    step: float
    mask: Mask

    def box(self, width: int, height: int) -> Box:
        """The object's bounding box in an image of this size."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        x, y = width / self.mask.shape[1], height / self.mask.shape[0]
        return Box(columns[0] * x, rows[0] * y, (columns[-1] + 1) * x, (rows[-1] + 1) * y)


def find_object(pixels: Pixels) -> BackgroundModel | None:
    """The object on a plain ground; None where the ground is not plain or nothing stands out.

    Args:
        pixels: the image, (height, width, channels), at any scale.
    """
    height, width, _ = pixels.shape
    scale = min(1.0, DETECT_SIDE / min(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = resize(pixels, Box(0, 0, width, height), size).astype(np.float64)
    fitted = _fit_ground(small)
    if fitted is None:
        return None
    coefficients, noise = fitted
    step = max(_LEAST_STEP, _NOISES * noise)
    differs = _opened(_difference(small, coefficients) > step)
    mask = largest_region(differs)
    if not _LEAST_AREA <= mask.mean() <= _MOST_AREA:
        return None
    if (differs & mask).sum() < _MOST_OF_IT * differs.sum():
        return None
    return BackgroundModel(coefficients, step, mask)


def _fit_ground(pixels: Field) -> tuple[Field, float] | None:
    """The ground's coefficients and its noise, from the border; None where it is not plain."""
    height, width, _ = pixels.shape
    depth = max(2, round(min(height, width) * _BORDER))
    border = np.ones((height, width), bool)
    border[depth:-depth, depth:-depth] = False
    basis, values = _basis(height, width)[border], pixels[border]
    inside = np.ones(len(values), bool)
    # Begin at the median, so that an object that touches the border does not pull the fit.
    strays = np.abs(values - np.median(values, axis=0)).max(axis=1)
    for _ in range(_FITS):
        noise = float(np.median(strays[inside])) * 1.4826
        inside = strays <= max(_LEAST_STEP, 3 * noise)
        if inside.mean() < _PLAIN_SHARE:
            return None
        fitted = basis[inside]
        # The normal equations: six well-scaled unknowns; a little weight keeps them solvable.
        square = fitted.T @ fitted + 1e-6 * np.eye(fitted.shape[1])
        coefficients = np.linalg.solve(square, fitted.T @ values[inside])
        strays = np.abs(values - basis @ coefficients).max(axis=1)
    noise = float(np.median(strays[inside])) * 1.4826
    if noise > _PLAIN_NOISE or (strays <= _LEAST_STEP + 3 * noise).mean() < _PLAIN_SHARE:
        return None
    return coefficients, noise


def _basis(height: int, width: int) -> Field:
    """`_basis_at` the middles of an image's pixels."""
    return _basis_at(
        (np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1
    )


def _basis_at(x: Field, y: Field) -> Field:
    """(height, width, 6): 1, x, y, x², xy, y² on the grid of x and y, each from -1 to 1."""
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return np.stack(
        [np.ones_like(columns), columns, rows, columns**2, columns * rows, rows**2], axis=-1
    )


def _difference(pixels: Field, coefficients: Field) -> Field:
    """How far each pixel is from the modelled ground: the largest channel's difference."""
    height, width, _ = pixels.shape
    model = _basis(height, width) @ coefficients
    return np.asarray(np.abs(pixels - model).max(axis=2))


def _opened(mask: Mask) -> Mask:
    """Without specks and hairs: eroded, then grown again."""
    return _grown(~_grown(~mask))


def _grown(mask: Mask) -> Mask:
    """The mask and its 4 neighbours."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def replace_background(
    pixels: Pixels,
    ground: BackgroundModel,
    box: Box,
    full: tuple[int, int],
    colour: tuple[int, ...],
) -> Pixels:
    """A sample with one colour for its ground.

    The edge is soft: where a pixel is between ground and object its share of the ground is taken
    out and the new colour put in.

    Args:
        pixels: the sample, (height, width, channels).
        ground: what `find_object` found in the whole image.
        box: the sample's place in the whole image.
        full: (width, height) of the whole image.
        colour: the new colour, a value a channel.
    """
    height, width, _ = pixels.shape
    x = (box.left + (np.arange(width) + 0.5) / width * box.width) / full[0]
    y = (box.top + (np.arange(height) + 0.5) / height * box.height) / full[1]
    model = _basis_at(np.clip(x, 0, 1) * 2 - 1, np.clip(y, 0, 1) * 2 - 1) @ ground.coefficients
    values = pixels.astype(np.float64)
    differs = np.abs(values - model).max(axis=2)
    opaque = np.clip((differs - ground.step / 2) / ground.step, 0, 1)
    rows, columns = _places(y, ground.mask.shape[0]), _places(x, ground.mask.shape[1])
    core, around = ~_grown(~ground.mask), _grown(_grown(ground.mask))
    opaque = np.where(_inside(core, rows, columns), 1.0, opaque)
    opaque = np.where(_inside(around, rows, columns), opaque, 0.0)[:, :, None]
    new = np.asarray(colour, np.float64)
    mixed = np.where(opaque > 0, values + (1 - opaque) * (new - model), new)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _places(share: Field, count: int) -> NDArray[np.int64]:
    """Which of `count` cells each share of the side is in; -1 outside."""
    cells = np.floor(share * count).astype(np.int64)
    return np.where((share >= 0) & (share < 1), cells, -1)


def _inside(mask: Mask, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Mask:
    found = mask[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)[None, :]]
    return found & (rows >= 0)[:, None] & (columns >= 0)[None, :]

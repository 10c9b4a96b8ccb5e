"""Detects one object on a plain or slowly varying background; replaces that background or makes it
transparent.

The background colour is modelled by a quadratic polynomial in x and y, fitted to the border of the
image without outliers. Pixels that differ from the model belong to the object; only the largest
region counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.alpha import define_hidden_colours
from pipeline.imaging.components import Mask, largest_region
from pipeline.imaging.crops import Box
from pipeline.imaging.resampling import Pixels, resize

Field = NDArray[np.float64]
Cells = NDArray[np.int64]

DETECT_SIDE = 128
"""The short side, in pixels, at which objects are detected."""

_BORDER = 0.04
_FIT_ROUNDS = 3
_MAX_NOISE = 10.0
"""Maximum noise of a plain background: the robust standard deviation of the border from its model
(values 0 to 255)."""
_MIN_BORDER = 0.5
"""Minimum fraction of the border that must be background."""
_MIN_STEP = 14.0
"""Pixels that differ by less than this are background, even if it has no noise."""
_NOISE_FACTOR = 5.0
_BLUR = 1.5
"""Half the width of an edge after resizing, in pixels of the original or of a smaller sample."""
_GAP = 2
"""Half the width, in cells of the mask, of gaps through which an object counts as closed."""
_MIN_AREA, _MAX_AREA = 0.01, 0.95
_MIN_LARGEST = 0.6
"""Minimum fraction of all foreground pixels that must belong to the object."""


@dataclass(frozen=True)
class BackgroundModel:
    """The model of an image's background, and the object on it.

    `coefficients`, (6, channels), multiply `_basis`; a pixel that differs from the model by more
    than `step` is foreground. `mask` is the object at detection size, without holes.
    """

    coefficients: Field
    step: float
    mask: Mask

    def box(self, width: int, height: int) -> Box:
        """Return the bounding box of the object in an image of this size."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        x, y = width / self.mask.shape[1], height / self.mask.shape[0]
        return Box(columns[0] * x, rows[0] * y, (columns[-1] + 1) * x, (rows[-1] + 1) * y)


def find_object(pixels: Pixels) -> BackgroundModel | None:
    """Find the object on a plain background; return None if the background is not plain or there is
    no object.

    Args:
        pixels: the image, (height, width, channels), at any scale.
    """
    height, width, _ = pixels.shape
    scale = min(1.0, DETECT_SIDE / min(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = resize(pixels, Box(0, 0, width, height), size).astype(np.float64)
    fitted = _fit_background(small)
    if fitted is None:
        return None
    coefficients, noise = fitted
    step = max(_MIN_STEP, _NOISE_FACTOR * noise)
    differs = _remove_specks(_difference(small, coefficients) > step)
    mask = largest_region(differs)
    if not _MIN_AREA <= mask.mean() <= _MAX_AREA:
        return None
    if (differs & mask).sum() < _MIN_LARGEST * differs.sum():
        return None
    return BackgroundModel(coefficients, step, mask)


def _fit_background(pixels: Field) -> tuple[Field, float] | None:
    """Fit the background to the border; return its coefficients and noise, or None if it is not
    plain."""
    height, width, _ = pixels.shape
    depth = max(2, round(min(height, width) * _BORDER))
    border = np.ones((height, width), bool)
    border[depth:-depth, depth:-depth] = False
    basis, values = _basis(height, width)[border], pixels[border]
    inside = np.ones(len(values), bool)
    # Start at the median, so that an object at the border does not bias the fit.
    strays = np.abs(values - np.median(values, axis=0)).max(axis=1)
    for _ in range(_FIT_ROUNDS):
        noise = float(np.median(strays[inside])) * 1.4826
        inside = strays <= max(_MIN_STEP, 3 * noise)
        if inside.mean() < _MIN_BORDER:
            return None
        fitted = basis[inside]
        # Normal equations of six well-scaled unknowns; a small ridge term keeps them solvable.
        square = fitted.T @ fitted + 1e-6 * np.eye(fitted.shape[1])
        coefficients = np.linalg.solve(square, fitted.T @ values[inside])
        strays = np.abs(values - basis @ coefficients).max(axis=1)
    noise = float(np.median(strays[inside])) * 1.4826
    if noise > _MAX_NOISE or (strays <= _MIN_STEP + 3 * noise).mean() < _MIN_BORDER:
        return None
    return coefficients, noise


def _basis(height: int, width: int) -> Field:
    """Return `_basis_at` for the centres of an image's pixels."""
    return _basis_at(
        (np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1
    )


def _basis_at(x: Field, y: Field) -> Field:
    """Return (height, width, 6): 1, x, y, x², xy, y² on the grid of x and y, each from -1 to 1."""
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return np.stack(
        [np.ones_like(columns), columns, rows, columns**2, columns * rows, rows**2], axis=-1
    )


def _difference(pixels: Field, coefficients: Field) -> Field:
    """Return the distance of each pixel from the background model: the largest difference in any
    channel."""
    height, width, _ = pixels.shape
    model = _basis(height, width) @ coefficients
    return np.asarray(np.abs(pixels - model).max(axis=2))


def _remove_specks(mask: Mask) -> Mask:
    """Remove specks and thin lines: erode, then dilate."""
    return _dilate(~_dilate(~mask))


def _dilate(mask: Mask) -> Mask:
    """Dilate a mask by its 4 neighbours."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def replace_background(
    pixels: Pixels,
    background: BackgroundModel,
    box: Box,
    full: tuple[int, int],
    colour: tuple[int, ...],
) -> Pixels:
    """Replace the background of a sample by one colour.

    The edge is soft: at a pixel between background and object, only the background's share is
    replaced.

    Args:
        pixels: the sample, (height, width, channels).
        background: the result of `find_object` for the whole image.
        box: the sample's box in the whole image.
        full: (width, height) of the whole image.
        colour: the new colour, one value per channel.
    """
    model, rows, columns = _place(background, box, full, pixels.shape[:2])
    values = pixels.astype(np.float64)
    differs = np.abs(values - model).max(axis=2)
    opacity = np.clip((differs - background.step / 2) / background.step, 0, 1)
    core, around = ~_dilate(~background.mask), _dilate(_dilate(background.mask))
    opacity = np.where(_inside(core, rows, columns), 1.0, opacity)
    opacity = np.where(_inside(around, rows, columns), opacity, 0.0)[:, :, None]
    new = np.asarray(colour, np.float64)
    mixed = np.where(opacity > 0, values + (1 - opacity) * (new - model), new)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def cut_out(pixels: Pixels, background: BackgroundModel, box: Box, full: tuple[int, int]) -> Pixels:
    """Make the background of a sample transparent: (height, width, 4), straight alpha.

    At the object's edge, a pixel I = α·F + (1 − α)·B is a mixture of the object's colour F, taken
    from the nearest pixels inside, and the background B of the model. α is the least-squares
    solution, and B's share is removed from the colour, so that no light or dark line remains around
    the object on another background.

    Args:
        pixels: the sample, (height, width, 3); the others as in `replace_background`.
    """
    model, rows, columns = _place(background, box, full, pixels.shape[:2])
    values, mask = pixels.astype(np.float64), _fill_pockets(background.mask)
    core = _inside(~_dilate(~mask), rows, columns)
    around = _dilate(_inside(_dilate(_dilate(mask)), rows, columns))
    around &= (rows >= 0)[:, None] & (columns >= 0)[None, :]
    # The outermost pixels of the core may be mixtures, too: as many as the resizing blurs.
    sure, enlarged = core, max(1.0, pixels.shape[0] / box.height)
    for _ in range(math.ceil(_BLUR * enlarged)):
        sure = ~_dilate(~sure)
    sure = sure if sure.any() else core
    object_colour = _spread(values, sure, around)
    contrast, apart = object_colour - model, values - model
    size = (contrast**2).sum(axis=2)
    opacity = (apart * contrast).sum(axis=2) / np.maximum(size, 1.0)
    # below the noise, a pixel is background; without contrast, the mask decides
    strength = np.abs(apart).max(axis=2) / (background.step / 2) - 1
    opacity = np.clip(opacity, 0, 1) * np.clip(strength, 0, 1)
    inside = _inside(mask, rows, columns)
    opacity = np.where(size < background.step**2, inside, opacity)
    opacity = np.where(around, np.where(sure, 1.0, opacity), 0.0)[:, :, None]
    own = np.clip(values - (1 - opacity) * model, 0, 255 * opacity)
    colour = own / np.maximum(opacity, 1 / 255)
    rgba = np.concatenate([np.clip(colour, 0, 255), opacity * 255], axis=2)
    return define_hidden_colours(np.rint(rgba).astype(np.uint8))


def _fill_pockets(mask: Mask) -> Mask:
    """Add to the object what it encloses but for a narrow gap: parts that have the background's
    colour, such as a white lip before white."""
    grown = mask
    for _ in range(_GAP):
        grown = _dilate(grown)
    pockets = largest_region(grown) & ~grown
    for _ in range(_GAP):
        pockets = _dilate(pockets)
    return largest_region(mask | pockets)


def _spread(values: Field, known: Mask, wanted: Mask) -> Field:
    """Return `values` with those of the `wanted` pixels that are not `known` replaced by the mean
    of their nearest known ones, one ring of neighbours after the other; in large images, in blocks
    of several pixels."""
    block = max(1, max(known.shape) // (2 * DETECT_SIDE))
    count = _block_sums(known.astype(np.float64), block)
    filled = _block_sums(values * known[:, :, None], block) / np.maximum(count, 1)[:, :, None]
    found, open_blocks = count > 0, _block_sums(wanted.astype(np.float64), block) > 0
    while (near := open_blocks & ~found & _dilate(found)).any():
        total, count = np.zeros_like(filled), np.zeros(found.shape)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            total += _shifted(filled, axis, step)
            count += _shifted(found.astype(np.float64), axis, step)
        filled[near] = total[near] / count[near][:, None]
        found |= near
    height, width = known.shape
    spread = filled.repeat(block, axis=0)[:height].repeat(block, axis=1)[:, :width]
    return np.where(known[:, :, None], values, spread)


def _block_sums(field: Field, block: int) -> Field:
    """Return the sums over blocks of `block` × `block` pixels; the last ones may be smaller."""
    if block == 1:
        return field.copy()
    rows, columns = (np.arange(0, side, block) for side in field.shape[:2])
    sums: Field = np.add.reduceat(np.add.reduceat(field, rows, axis=0), columns, axis=1)
    return sums


def _shifted(values: Field, axis: int, step: int) -> Field:
    """Shift by one pixel, with zeros at the side that becomes free."""
    moved = np.roll(values, step, axis)
    edge = [slice(None)] * values.ndim
    edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved


def _place(
    background: BackgroundModel, box: Box, full: tuple[int, int], size: tuple[int, ...]
) -> tuple[Field, Cells, Cells]:
    """Return the background model (height, width, channels) of the sample of `size` at `box`, and
    the mask's cell of each row and column, see `_cell_indices`."""
    height, width = size
    x = (box.left + (np.arange(width) + 0.5) / width * box.width) / full[0]
    y = (box.top + (np.arange(height) + 0.5) / height * box.height) / full[1]
    model = _basis_at(np.clip(x, 0, 1) * 2 - 1, np.clip(y, 0, 1) * 2 - 1) @ background.coefficients
    mask_rows, mask_columns = background.mask.shape
    return model, _cell_indices(y, mask_rows), _cell_indices(x, mask_columns)


def _cell_indices(share: Field, count: int) -> NDArray[np.int64]:
    """Return the index of the mask cell, of `count`, at each fraction of a side; -1 outside."""
    cells = np.floor(share * count).astype(np.int64)
    return np.where((share >= 0) & (share < 1), cells, -1)


def _inside(mask: Mask, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Mask:
    found = mask[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)[None, :]]
    return found & (rows >= 0)[:, None] & (columns >= 0)[None, :]

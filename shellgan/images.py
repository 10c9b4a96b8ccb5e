"""Images: as arrays, as `PIL.Image.Image`, and as the result of a projection."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.contract import UserError
from pipeline.imaging.alpha import has_alpha, unpremultiply
from pipeline.imaging.color import to_srgb
from shellgan.arguments import check_count
from training.grid import make_grid, shown
from training.image_files import decode_image, read_image
from training.image_shape import ImageShape

Pixels = NDArray[np.uint8]
"""Images (n, height, width, channels), from 0 to 255."""


@dataclass(frozen=True)
class ProjectedImage:
    """The `image` (height, width, channels) of the generator that is nearest to a given one, its
    latents `ws` (1, num_ws, w_dim), and the `distance` between both, beside that of the mean
    image."""

    image: Pixels
    ws: NDArray[np.float32]
    distance: float
    initial_distance: float


def _checked(images: Pixels) -> Pixels:
    """Return the argument.

    Raises:
        UserError: it is not uint8 (n, height, width, channels).
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise UserError(
            f"images: {images.dtype} {images.shape}; give uint8 (n, height, width, channels)"
        )
    return images


def to_pil(images: Pixels) -> list[Image.Image]:
    """Return images uint8 (n, height, width, channels) as `PIL.Image.Image`: modes L, RGB or RGBA,
    the last with straight alpha.

    Raises:
        UserError: the array has another shape or type.
    """
    images = _checked(images)
    straight = unpremultiply(images) if has_alpha(images) else images
    return [Image.fromarray(one[:, :, 0] if one.shape[2] == 1 else one) for one in straight]


def as_pil(image: Image.Image | Pixels) -> Image.Image:
    """Return an image, or an array uint8 (height, width, channels), as `PIL.Image.Image`.

    Raises:
        UserError: the array has another shape or type.
    """
    return image if isinstance(image, Image.Image) else to_pil(image[None])[0]


def to_png(image: Image.Image) -> bytes:
    """Return an image of any mode as a PNG file in sRGB."""
    profile, buffer = image.info.get("icc_profile"), io.BytesIO()
    found = to_srgb(image, profile if isinstance(profile, bytes) else None, [], alpha=True)
    found.save(buffer, "PNG", icc_profile=None)
    return buffer.getvalue()


def read_pixels(image: str | Path | Image.Image | Pixels, shape: ImageShape, fit: str) -> Pixels:
    """Return an image file, or an upright image, as training reads the images of shards: uint8 in
    `shape`, resized by `fit` (see `DataOptions`).

    Raises:
        UserError: it cannot be read as an image.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image), shape, fit)
    try:
        return decode_image(to_png(as_pil(image)), shape, fit)
    except ValueError as error:
        raise UserError(f"image: {error}") from None


def to_grid(images: Pixels, columns: int = 0) -> Image.Image:
    """Return images (n, height, width, channels) in rows as one image, transparency over a
    checkerboard.

    Args:
        columns: number of images per row (0: near-square).

    Raises:
        UserError: there are no images, or the array has another shape or type.
    """
    if not len(_checked(images)):
        raise UserError("images: empty; give at least one")
    columns = check_count("columns", columns, 0)
    return to_pil(shown(make_grid(images, columns))[None])[0]

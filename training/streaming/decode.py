"""From the bytes of an image file to pixels of the requested size."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Extensions of image members, in order of preference, and Pillow's names of the formats."""

Image.MAX_IMAGE_PIXELS = None  # `_check_size` checks before; Pillow would only warn about some

Pixels = NDArray[np.uint8]


def decode_into(out: Pixels, data: bytes, extension: str, stored: tuple[int, int]) -> None:
    """Decode the image into `out`, uint8 (height, width, channels).

    A larger image with the same aspect, up to `stored` (height, width), is reduced by averaging
    (box filter); gray and colour are converted if `out` has other channels.

    Raises:
        ValueError: the image does not have the format of `extension`, is smaller than requested,
            larger than `stored`, or has another aspect.
    """
    height, width, channels = out.shape
    if extension in ("jpg", "jpeg"):
        space = "RGB" if channels == 3 else "GRAY"
        try:  # it usually fits; asking for its size first would parse the header twice
            if simplejpeg.decode_jpeg(data, space, buffer=out).shape == out.shape:
                return
        except ValueError:  # larger than the buffer, or not an image
            pass
        _check_size(simplejpeg.decode_jpeg_header(data)[:2], out.shape, stored)
        pixels: Pixels = simplejpeg.decode_jpeg(data, space)
    else:
        pixels = _pillow(data, FORMATS[extension], out.shape, stored)
    out[...] = pixels if pixels.shape[:2] == (height, width) else _shrink(pixels, height, width)


def _pillow(data: bytes, form: str, wanted: tuple[int, ...], stored: tuple[int, int]) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=[form]) as image:
            _check_size((image.height, image.width), wanted, stored)
            pixels = np.asarray(image.convert("RGB" if wanted[2] == 3 else "L"))
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's plugins raise what they like)
        raise ValueError(f"is no image that can be read ({type(error).__name__})") from None
    return pixels if wanted[2] == 3 else pixels[:, :, None]


def _check_size(have: tuple[int, ...], wanted: tuple[int, ...], stored: tuple[int, int]) -> None:
    """Raise ValueError if an image of that (height, width) cannot be used; checked before it is
    decoded, because a small file may contain a huge image."""
    height, width = have
    if height > stored[0] or width > stored[1]:
        raise ValueError(f"is {width}×{height} px, the index says {stored[1]}×{stored[0]}")
    if height < wanted[0] or width < wanted[1] or height * wanted[1] != width * wanted[0]:
        raise ValueError(f"is {width}×{height} px, wanted {wanted[1]}×{wanted[0]}")


def _shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return small if pixels.shape[2] == 3 else small[:, :, None]

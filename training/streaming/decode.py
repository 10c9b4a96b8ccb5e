"""From the bytes of an image file to pixels of the requested size."""

from __future__ import annotations

import io
from contextlib import closing

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.alpha import premultiply, with_alpha
from pipeline.imaging.crops import Box, center_box, pad_box
from pipeline.imaging.images import decoded, image_header
from pipeline.imaging.jpeg_header import read_jpeg_header
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.pixels import LazyImage, mode_of, render

FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Extensions of image members, in order of preference, and Pillow's names of the formats."""

Image.MAX_IMAGE_PIXELS = None  # `_check_size` checks before; Pillow would only warn about some

_ODD = frozenset({"icc_profile", "transparency", "exif"})
"""Properties of images whose pixels must be converted or rotated."""
_BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF"}
"""The first bytes of the formats that Pillow decodes, by extension."""
_LIMITS = ImageLimits(100_000_000)

Pixels = NDArray[np.uint8]


class OtherSizeError(ValueError):
    """The image has another size than the shards."""


def decode_into(out: Pixels, data: bytes, extension: str, stored: tuple[int, int]) -> None:
    """Decode the image into `out`, uint8 (height, width, channels); RGBA is premultiplied.

    A larger image with the same aspect, up to `stored` (height, width), is reduced by averaging
    (box filter); gray and colour are converted if `out` has other channels.

    Raises:
        ValueError: the image does not have the format of `extension`, is smaller than requested,
            larger than `stored`, or has another aspect.
    """
    channels = out.shape[2]
    if extension in ("jpg", "jpeg"):
        if _decode_jpeg(out, data):
            return
        _check_size(simplejpeg.decode_jpeg_header(data)[:2], out.shape, stored)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB")
    else:
        pixels = _pillow(data, FORMATS[extension], out.shape, stored)
    _put(out, pixels)


def decode_any(out: Pixels, data: bytes, extension: str, stored: tuple[int, int]) -> None:
    """Decode like `decode_into` an image of another tool, of any format, mode and colour space.

    Raises:
        ValueError: as in `decode_into`.
    """
    if _is_plain_jpeg(data):
        try:
            decode_into(out, data, "jpg", stored)
            return
        except OtherSizeError:
            raise
        except ValueError:  # Pillow decides whether it can be used
            pass
    elif (beginning := _BEGINNINGS.get(extension)) and data.startswith(beginning):
        decode_into(out, data, extension, stored)
        return
    _put(out, _converted(data, out.shape, stored))


def _is_plain_jpeg(data: bytes) -> bool:
    """Return True if a file is a JPEG whose pixels need no rotation or conversion."""
    if data[:6] == b"\xff\xd8\xff\xe0\0\x10":  # most files, in a tenth of the time
        head = data[: data.find(b"\xff\xda")]
        if not (b"\xff\xe1" in head or b"\xff\xe2" in head or b"\xff\xee" in head):
            return True
    header = read_jpeg_header(data)
    return header is not None and header.plain and header.orientation == 1


def decode_fitted(out: Pixels, data: bytes, extension: str, fit: str) -> None:
    """Decode an image of any size into `out`, uint8 (height, width, channels), resized as the shard
    stage does: with the crop mode `center`, `pad` or `none` if `fit` is `crop`, `pad` or `stretch`.

    Raises:
        ValueError: it is not an image, or is too large.
    """
    height, width, channels = out.shape
    if _is_plain_jpeg(data) and _decode_jpeg(out, data):
        return
    try:
        size = image_header(data)[:2]
        if size == (width, height):
            decode_any(out, data, extension, (height, width))
            return
        _LIMITS.check(*size)
        if fit == "stretch":
            box = Box(0, 0, *size)
        else:
            box = (center_box if fit == "crop" else pad_box)(*size, width / height)
        with closing(LazyImage(data, size, mode_of(channels), strict=True)) as image:
            pixels = render(image, box, (height, width))
            out[...] = premultiply(pixels) if channels == 4 else pixels
    except ImageError as error:
        raise ValueError(f"is no image that can be read ({error})") from None


def _decode_jpeg(out: Pixels, data: bytes) -> bool:
    """Decode a JPEG that fits into `out`; return False if it does not, or cannot be decoded."""
    if out.shape[2] == 4:
        return False
    space = "RGB" if out.shape[2] == 3 else "GRAY"
    try:  # it usually fits; asking for its size first would parse the header twice
        found: Pixels = simplejpeg.decode_jpeg(data, space, buffer=out)
    except ValueError:  # larger than the buffer, or not an image
        return False
    return found.shape == out.shape


def _pillow(data: bytes, form: str, wanted: tuple[int, ...], stored: tuple[int, int]) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=[form]) as image:
            plain = ("RGB", "L", "RGBA") if wanted[2] == 4 else ("RGB", "L")
            is_odd = not _ODD.isdisjoint(image.info) or getattr(image, "is_animated", False)
            if image.mode not in plain or is_odd:
                return _converted(data, wanted, stored)
            _check_size((image.height, image.width), wanted, stored)
            pixels = _as_pixels(image, wanted[2])
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's plugins raise what they like)
        raise ValueError(f"is no image that can be read ({type(error).__name__})") from None
    return pixels


def _as_pixels(image: Image.Image, channels: int) -> Pixels:
    """Return the pixels of an image in sRGB, premultiplied if there are four channels."""
    pixels = np.asarray(image.convert(mode_of(channels)))
    if channels == 4:
        return premultiply(pixels)
    return pixels if channels == 3 else pixels[:, :, None]


def _converted(data: bytes, wanted: tuple[int, ...], stored: tuple[int, int]) -> Pixels:
    """Decode an image that must be rotated or converted to sRGB, as by the import: alpha is kept in
    four channels, and blended with white otherwise."""
    try:
        width, height = image_header(data)[:2]
        _check_size((height, width), wanted, stored)
        with decoded(data, ImageLimits.of_size(width, height), alpha=wanted[2] == 4) as found:
            return _as_pixels(found.image, wanted[2])
    except ImageError as error:
        raise ValueError(f"is no image that can be read ({error})") from None


def _check_size(have: tuple[int, ...], wanted: tuple[int, ...], stored: tuple[int, int]) -> None:
    """Raise ValueError if an image of that (height, width) cannot be used; checked before it is
    decoded, because a small file may contain a huge image."""
    height, width = have
    if height > stored[0] or width > stored[1]:
        raise OtherSizeError(f"is {width}×{height} px, the index says {stored[1]}×{stored[0]}")
    if height < wanted[0] or width < wanted[1] or height * wanted[1] != width * wanted[0]:
        raise OtherSizeError(f"is {width}×{height} px, wanted {wanted[1]}×{wanted[0]}")


def _put(out: Pixels, pixels: Pixels) -> None:
    height, width, _ = out.shape
    small = pixels if pixels.shape[:2] == (height, width) else _shrink(pixels, height, width)
    out[...] = with_alpha(small) if out.shape[2] == 4 else small


def _shrink(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[2] == 4:  # Pillow's mode of premultiplied RGBA
        size = pixels.shape[1], pixels.shape[0]
        image = Image.frombuffer("RGBa", size, np.ascontiguousarray(pixels), "raw", "RGBa", 0, 1)
    else:
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return small[:, :, None] if small.ndim == 2 else small

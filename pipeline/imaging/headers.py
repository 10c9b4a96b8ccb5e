"""Checks the header of an image file: format, size, frames and the memory for decoding."""

from __future__ import annotations

import functools
import importlib
import io
import struct
import warnings
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from pipeline.imaging.formats import image_format, other_format
from pipeline.imaging.jpeg_header import count_scans
from pipeline.imaging.jxl_header import read_jxl_header
from pipeline.imaging.limits import ImageError, ImageLimits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
"""Formats that are decoded (MPO is part of JPEG); `_PLUGINS` adds further ones."""

_PLUGINS = {"HEIC": ("pillow_heif", "HEIF", "heic"), "JXL": ("pillow_jxl", "JXL", "jxl")}
"""By format: the package that decodes it, Pillow's name of the format, and the extra that installs
it."""

_STILL = ("MPO", "TIFF", "HEIF", "ICO")
"""Formats of which one image is used: the first (MPO, TIFF), the main (HEIF) or the largest (ICO).
The others are pages, previews, a second view or other sizes."""

MAX_SCANS = 200
"""A progressive JPEG has about ten scans; thousands of empty ones take minutes to decode."""

_PIXEL_BYTES = 16
"""Bytes of memory per pixel for every image: decoded, rotated, converted to sRGB, and copied to
numpy. The measured maximum (16 megapixels, all modes) is 13."""

_DECODER_BYTES = {"WEBP": 20, "AVIF": 20, "HEIF": 20, "JXL": 20, "JPEG2000": 28}
"""Bytes of memory per pixel while decoding, for formats that need more (measured: 19, 13, 14, 14,
and 13 with 8 bits per channel, so at most twice that with 16)."""

_ICO_HEAD, _ICO_ENTRY = 6, 16
_MAX_ICON = 1024
"""The longest side of a bitmap in an icon file (256 by the format; larger ones are PNGs)."""


def open_file(data: bytes, limits: ImageLimits, hold: Callable[[int], None]) -> Image.Image:
    """Open a file and check its header without decoding it.

    Args:
        hold: called with the number of bytes that opening needs, if opening decodes the image.

    Raises:
        ImageError: it is not an image, its format is not supported, or it is too large or animated.
        Exception: any exception of Pillow.
    """
    name = image_format(data)
    formats: list[str] | tuple[str, ...] = FORMATS
    if name in _PLUGINS:
        formats = [_plugin(name)]
    elif name is None:
        other = other_format(data)
        if other is not None:
            raise ImageError("wrong_type", other)
    elif name == "ICO":
        data = _largest_icon(data)
    if name == "JXL":
        header = read_jxl_header(data)  # opening it decodes it
        limits.check(*header.size)
        if header.animated:
            raise ImageError("animated", "a JPEG XL animation")
        hold(header.size[0] * header.size[1] * _DECODER_BYTES["JXL"])
    elif name == "ICO" and image_format(data) == "ICO":
        limits.check(*_bitmap_size(data))  # opening it decodes it
    elif name == "JPEG" and count_scans(data) > MAX_SCANS:
        raise ImageError("undecodable", f"a JPEG of more than {MAX_SCANS} scans")
    try:
        file = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if _states_zero_size(data):
            raise ImageError("zero_size", "the header says so") from None
        what = f"a damaged {name}" if name else "not a supported image format"
        raise ImageError("undecodable", what) from None
    limits.check(*file.size)
    if file.format not in _STILL and getattr(file, "is_animated", False):
        # The frames of a GIF are counted by decoding them.
        frames = "several" if file.format == "GIF" else getattr(file, "n_frames", "several")
        raise ImageError("animated", f"{frames} frames")
    return file


def decode_bytes(file: Image.Image, full: tuple[int, int], data: bytes) -> int:
    """Return an upper bound of the memory to decode `file` and convert it to an upright sRGB image.

    Args:
        file: the opened image, perhaps set to be decoded at a smaller size.
        full: its full (width, height).
    """
    if file.format == "JXL":
        return 0  # reserved before it was opened
    pixels = file.width * file.height
    needed = pixels * _DECODER_BYTES.get(file.format or "", _PIXEL_BYTES)
    if file.format in ("JPEG", "MPO"):
        return max(needed, pixels * 4 + jpeg_coefficient_bytes(data, full))
    return needed


def jpeg_coefficient_bytes(data: bytes, full: tuple[int, int]) -> int:
    """Return the bytes of memory for the coefficients of a JPEG; they are kept only if it has
    several scans."""
    several = count_scans(data) > 1
    return full[0] * full[1] * 8 if several else 0


def page_note(file: Image.Image) -> str | None:
    """Return a note if the file has further pages, which are not used; otherwise None."""
    ifd = getattr(file, "tag_v2", None)
    return "page 1 of several" if getattr(ifd, "next", None) else None


@functools.cache
def _load_plugin(package: str) -> bool:
    """Load the package that decodes a format; False if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(package)
    except ImportError:
        return False
    register = getattr(module, "register_heif_opener", None)
    if register is not None:
        register()
    return True


def _plugin(name: str) -> str:
    """Return Pillow's name of a format that an optional package decodes."""
    package, known_as, extra = _PLUGINS[name]
    if not _load_plugin(package):
        raise ImageError(
            "wrong_type", f"{name}; to read it, run pip install 'shellgan[{extra}]', then retry "
            "--kind wrong_type --everything",
        )  # fmt: skip
    return known_as


def _states_zero_size(data: bytes) -> bool:
    """Return True if the header of a PNG, GIF or BMP gives a width or height of zero."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        sides = struct.unpack_from(">II", data.ljust(24, b"\1"), 16)
    elif data[:4] == b"GIF8":
        sides = struct.unpack_from("<HH", data.ljust(10, b"\1"), 6)
    elif data[:2] == b"BM":
        sides = struct.unpack_from("<II", data.ljust(26, b"\1"), 18)
    else:
        return False
    return 0 in sides


def _largest_icon(data: bytes) -> bytes:
    """Return an icon file that contains only the largest image; the image itself if it is a PNG."""
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [
        data[start : start + _ICO_ENTRY]
        for start in range(_ICO_HEAD, _ICO_HEAD + count * _ICO_ENTRY, _ICO_ENTRY)
    ]
    entries = [entry for entry in entries if len(entry) == _ICO_ENTRY]
    if not entries:
        raise ImageError("undecodable", "an icon file without an image")
    entry = max(entries, key=lambda one: ((one[0] or 256) * (one[1] or 256), one[6]))
    size, offset = struct.unpack_from("<II", entry, 8)
    image = data[offset : offset + size]
    if len(image) < size:
        raise ImageError("undecodable", "an icon file that ends early")
    if image[:4] == b"\x89PNG":
        return image
    alone = entry[:8] + struct.pack("<II", len(image), _ICO_HEAD + _ICO_ENTRY)
    return b"\0\0\1\0\1\0" + alone + image


def _bitmap_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of the bitmap in a result of `_largest_icon`; the stated height
    includes the mask below the bitmap."""
    head, width, height = struct.unpack_from("<Iii", data, _ICO_HEAD + _ICO_ENTRY)
    if head < 40:
        raise ImageError("undecodable", "an icon in an old format")
    size = abs(width), abs(height) // 2
    if max(size) > _MAX_ICON:
        raise ImageError("too_many_pixels", f"{size[0]} × {size[1]} is over {_MAX_ICON} of an icon")
    return size

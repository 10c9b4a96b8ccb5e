"""Reads from the header of a JPEG how to decode it."""

from __future__ import annotations

import functools
import io
import re
import struct
from dataclasses import dataclass

import numpy as np
from PIL import ImageCms

_START_OF_SCAN, _EXIF, _ICC, _ADOBE = 0xDA, 0xE1, 0xE2, 0xEE
_BLOCK = 1 << 18
"""Bytes that are searched at once, so that a large file needs no further memory."""
_NO_FRAME = (0xC4, 0xC8, 0xCC)
_ICC_HEAD = b"ICC_PROFILE\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


@dataclass(frozen=True)
class JpegHeader:
    """`orientation` is that in Exif, or else in XMP, from 1 to 8. `plain` is True if the decoded
    pixels are 8-bit gray or RGB values in sRGB, so that no conversion is needed."""

    orientation: int
    plain: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the header of a JPEG; None if the file is not a JPEG or its header is damaged."""
    if data[:2] != b"\xff\xd8":
        return None
    orientation: int | None = None
    xmp_orientation: int | None = None
    plain, place = True, 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill bytes
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        body = data[place + 4 : place + 2 + length]
        if marker == _START_OF_SCAN:
            return JpegHeader(orientation or xmp_orientation or 1, plain)
        if marker == _EXIF and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body[6:])
        elif marker == _EXIF and body.startswith(_XMP_HEAD):
            found = _XMP_ORIENTATION.search(body)
            xmp_orientation = int(found[1]) if found else None
        elif marker == _ICC and body.startswith(_ICC_HEAD):
            plain = plain and body[12:14] == b"\1\1" and _is_srgb(body[14:])
        elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) > 11:
            plain = plain and body[11] == 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            plain = plain and len(body) > 5 and body[0] == 8 and body[5] in (1, 3)
        place += 2 + length
    return None


def count_scans(data: bytes) -> int:
    """Return the number of start-of-scan markers, in a quarter of the time of `bytes.count`."""
    values, count = np.frombuffer(data, np.uint8), 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK + 1]
        count += int(np.count_nonzero((block[:-1] == 0xFF) & (block[1:] == _START_OF_SCAN)))
    return count


def exif_orientation(tiff: bytes) -> int | None:
    """Return the orientation, 1 to 8, in an Exif block; None if it is missing or the block is
    damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _kind, _count, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None


@functools.lru_cache(maxsize=16)
def _is_srgb(profile: bytes) -> bool:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return "sRGB" in ImageCms.getProfileDescription(opened)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False

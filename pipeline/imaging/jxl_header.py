"""Reads the size of a JPEG XL image from its header, because the plugin decodes images on opening.

ISO/IEC 18181-1 (codestream) and 18181-2 (container).
"""

from __future__ import annotations

from dataclasses import dataclass

_RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True)
class JxlHeader:
    """The (width, height) as stored, and whether the image is animated."""

    size: tuple[int, int]
    animated: bool


def read_jxl_header(data: bytes) -> JxlHeader:
    """Read the header of a JPEG XL file.

    Raises:
        ValueError: the header is invalid.
    """
    stream = data if data[:2] == b"\xff\x0a" else _codestream(data)
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no JPEG XL codestream")
    bits = _Bits(stream[2:66])
    size = _size(bits)
    animated = False
    if not bits.take(1) and bits.take(1):  # not all fields have defaults, and there are extra ones
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)  # the intrinsic size
        # files with a preview are not examined further
        animated = not bits.take(1) and bool(bits.take(1))
    return JxlHeader(size, animated)


def _codestream(data: bytes) -> bytes:
    """Return the start of the codestream in a container."""
    place = 0
    while place + 8 <= len(data):
        length, kind, head = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16]), 16
        if kind == b"jxlc":
            return data[place + head : place + head + 128]
        if kind == b"jxlp":
            return data[place + head + 4 : place + head + 132]
        if length < head:
            break
        place += length
    return b""


class _Bits:
    """Reads bits, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the JPEG XL header ends early")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio]
        return height * across // down, height
    return _side(bits, small), height


def _side(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (bits.take(5) + 1)
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1

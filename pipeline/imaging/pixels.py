"""Decodes the pixels of an original no larger than needed, and renders samples.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size at a fraction of the cost (the eighths in
between have no vector code and gain nothing). Images are decoded at `OVERSAMPLE` times the sample's
size or more, so that samples have a PSNR of 47 dB (median; minimum 40 dB) against a full decode.
The table shows the PSNR in dB for the benchmark's 120 photographs (600 to 1600 pixels per side)
and for the hardest images: 120 photographs of 256 pixels that are sharp at pixel level, reduced to
14 to 125 pixels (in practice, such small images are decoded at full size, see
`DECODE_WHOLE_BELOW`):

    oversampling                    1.25    1.5     1.75    2       2.5
    benchmark, 256 px: median, min  51, 47  53, 48  54, 51  55, 52  -
    benchmark, 64 px: median, min   51, 44  52, 46  53, 49  54, 51  -
    sharp ones: median              45      47      49      51      53
    sharp ones: worst twentieth     38      40      43      45      48
    sharp ones: min                 30      36      39      40      43
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.imaging.alpha import with_alpha
from pipeline.imaging.crops import Box
from pipeline.imaging.headers import MAX_SCANS, jpeg_coefficient_bytes
from pipeline.imaging.images import decoded
from pipeline.imaging.jpeg_header import count_scans, read_jpeg_header
from pipeline.imaging.limits import ImageError, ImageLimits, decode_budget
from pipeline.imaging.resampling import Pixels, resize, resize_linear

Mode = Literal["L", "RGB", "RGBA"]


def mode_of(channels: int) -> Mode:
    """Return the mode of images with 1, 3 or 4 channels."""
    return "L" if channels == 1 else "RGB" if channels == 3 else "RGBA"


OVERSAMPLE = 1.75
DECODE_WHOLE_BELOW = 1 << 18
"""Images with at most this many pixels are decoded at full size: most were reduced before and are
sharp at pixel level, and a reduced decode would save only a millisecond."""
_DIVISORS = (8, 4, 2, 1)


class LazyImage:
    """The pixels of one image, upright and in sRGB, decoded on demand at the scale needed.

    Args:
        data: the file.
        size: (width, height) in pixels, upright.
        mode: "L" for gray, "RGB" for colour, "RGBA" for colour with straight alpha.
        linear_light: resize in linear light, which requires a full decode.
        strict: refuse an incomplete JPEG. (Originals were checked when they were stored.)
    """

    def __init__(
        self,
        data: bytes,
        size: tuple[int, int],
        mode: Mode,
        linear_light: bool = False,
        strict: bool = False,
    ) -> None:
        self._data = data
        self.size = size
        self.mode: Mode = mode
        self._linear_light = linear_light
        self._strict = strict
        self._header = read_jpeg_header(data)
        self._decoded: _Decoded | None = None
        self._memory = ExitStack()

    def close(self) -> None:
        """Release the pixels and the memory held for them (`limits.DecodeBudget`)."""
        self._decoded = None
        self._memory.close()

    def pixels(self, scale: float) -> Pixels:
        """Return the whole image, upright, at `scale` (at most 1) of its size or more.

        Raises:
            ImageError: the file cannot be decoded.
        """
        decoded = self._decode_at(scale)
        return self._complete(apply_orientation(decoded.pixels, decoded.orientation))

    def region(self, box: Box, size: tuple[int, int], scale: float) -> Pixels:
        """Return the region `box`, inside the image, resized (Lanczos) to `size` (height, width).

        Args:
            scale: minimum scale at which the image must be decoded.

        Raises:
            ImageError: the file cannot be decoded.
        """
        decoded = self._decode_at(scale)
        if decoded.orientation > 4:
            size = (size[1], size[0])
        # Transform the box instead of the image, because libjpeg may have added a fraction of a
        # pixel at its right and lower edges.
        part = to_stored_box(box, self.size, decoded.orientation).scaled(decoded.scale)
        how = resize_linear if self._linear_light else resize
        resized = apply_orientation(how(decoded.pixels, part, size), decoded.orientation)
        return self._complete(resized)

    def _complete(self, pixels: Pixels) -> Pixels:
        """Add an opaque alpha if the mode needs one: opaque images are decoded without."""
        return with_alpha(pixels) if self.mode == "RGBA" else pixels

    def _decode_at(self, scale: float) -> _Decoded:
        whole = self._linear_light or self.size[0] * self.size[1] <= DECODE_WHOLE_BELOW
        scale = 1.0 if whole else min(1.0, scale)
        if self._decoded is None or self._decoded.scale < scale:
            self.close()  # hold nothing while waiting for more
            self._decoded = self._decode_fast(scale) or self._decode_with_pillow(scale)
        return self._decoded

    @property
    def _light_bytes(self) -> int:
        """The bytes of memory for the linear-light values of all pixels."""
        return 16 * self.size[0] * self.size[1] if self._linear_light else 0

    def _decode_fast(self, scale: float) -> _Decoded | None:
        """Decode with libjpeg-turbo; None if that is not possible."""
        if self._header is None or not self._header.plain:
            return None
        orientation = self._header.orientation
        stored = self.size if orientation <= 4 else self.size[::-1]
        try:
            # If the size differs from the recorded one, Pillow reports the error.
            if simplejpeg.decode_jpeg_header(self._data)[1::-1] != stored:
                return None
            self._memory.enter_context(hold_for_jpeg(self._data, stored, scale, self._light_bytes))
            mode: Mode = "L" if self.mode == "L" else "RGB"
            pixels = decode_jpeg(self._data, mode, stored, scale, self._strict)
        except ValueError:
            self._memory.close()
            return None
        return _Decoded.of(pixels, stored, orientation)

    def _decode_with_pillow(self, scale: float) -> _Decoded:
        # A rotated image is not decoded at a reduced size, see `region`.
        turned = self._header is not None and self._header.orientation != 1
        short = None if turned else min(self.size) // divisor_for(scale)
        limits = ImageLimits.of_size(*self.size)
        image = self._memory.enter_context(
            decoded(self._data, limits, short, self._light_bytes, self.mode == "RGBA")
        ).image
        wanted = "RGB" if self.mode == "RGBA" != image.mode else self.mode
        image = image if image.mode == wanted else image.convert(wanted)
        pixels = np.asarray(image)
        return _Decoded.of(pixels[:, :, None] if pixels.ndim == 2 else pixels, self.size, 1)


@dataclass(frozen=True)
class _Decoded:
    """An image as stored, before rotation, at `scale` of its size."""

    pixels: Pixels
    scale: float
    orientation: int

    @classmethod
    def of(cls, pixels: Pixels, full: tuple[int, int], orientation: int) -> _Decoded:
        """Compute the scale from the decoded and the full size; libjpeg rounds sizes up."""
        height, width, _ = pixels.shape
        for divisor in _DIVISORS[::-1]:
            if (width, height) == (-(-full[0] // divisor), -(-full[1] // divisor)):
                return cls(pixels, 1 / divisor, orientation)
        raise ImageError("undecodable", f"{width} × {height} pixels, recorded as {full}")


def decode_jpeg(
    data: bytes, mode: Mode, size: tuple[int, int], scale: float, strict: bool
) -> Pixels:
    """Decode a plain JPEG as stored, at the smallest available fraction of its size that is at
    least `scale`.

    Args:
        size: its full (width, height).
        strict: treat recoverable damage as an error.

    Raises:
        ValueError: libjpeg reports an error.
    """
    divisor = divisor_for(scale)
    pixels: Pixels = simplejpeg.decode_jpeg(
        data,
        "GRAY" if mode == "L" else "RGB",
        min_width=-(-size[0] // divisor),
        min_height=-(-size[1] // divisor),
        strict=strict,
    )
    return pixels


@contextmanager
def hold_for_jpeg(
    data: bytes, size: tuple[int, int], scale: float, more: int = 0
) -> Iterator[None]:
    """Hold memory for `decode_jpeg`, for the conversion of its result, and `more` bytes.

    Raises:
        ImageError: it exceeds the budget.
        ValueError: the file has too many scans.
    """
    if count_scans(data) > MAX_SCANS:
        raise ValueError("too many scans")
    pixels = size[0] * size[1] // divisor_for(scale) ** 2
    with decode_budget().hold(16 * pixels + jpeg_coefficient_bytes(data, size) + more):
        yield


def divisor_for(scale: float) -> int:
    """Return the largest divisor of the size at which an image keeps at least `scale` of it."""
    return next(divisor for divisor in _DIVISORS if divisor * scale <= 1 or divisor == 1)


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate and mirror stored pixels by Exif orientation."""
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def to_stored_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Convert a box of the upright image, whose (width, height) is `size`, to the stored image."""
    width, height = size
    if orientation in (2, 3, 6, 7):
        box = Box(width - box.right, box.top, width - box.left, box.bottom)
    if orientation in (3, 4, 7, 8):
        box = Box(box.left, height - box.bottom, box.right, height - box.top)
    if orientation > 4:
        box = Box(box.top, box.left, box.bottom, box.right)
    return box


def scale_for(box: Box, width: int, height: int) -> float:
    """Return the fraction of its size at which an image must be decoded to render `box`."""
    return OVERSAMPLE * max(width / box.width, height / box.height)


def render(original: LazyImage, box: Box, size: tuple[int, int]) -> Pixels:
    """Render the region `box` of an image as (height, width, channels) uint8 (Lanczos,
    antialiased).

    Pixels outside the image get the median colour of its border; in mode RGBA they are transparent.

    Args:
        size: (height, width) of the result.
    """
    height, width = size
    part = box.within(*original.size)
    left = round((part.left - box.left) / box.width * width)
    top = round((part.top - box.top) / box.height * height)
    right = max(left + 1, round((part.right - box.left) / box.width * width))
    bottom = max(top + 1, round((part.bottom - box.top) / box.height * height))
    scale = scale_for(box, width, height)
    inside = original.region(part, (bottom - top, right - left), scale)
    if inside.shape[:2] == size:
        return inside
    canvas = np.empty((*size, inside.shape[2]), np.uint8)
    canvas[:] = 0 if original.mode == "RGBA" else border_color(original.pixels(scale))
    canvas[top:bottom, left:right] = inside
    return canvas


def as_image(pixels: Pixels) -> Image.Image:
    """Convert (height, width, 1, 3 or 4) uint8 to an image of mode L, RGB or RGBA."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def border_color(pixels: Pixels) -> Pixels:
    """Return the median colour of an image's border, (channels,)."""
    colour: Pixels = np.median(border(pixels), axis=0).astype(np.uint8)
    return colour


def border(pixels: Pixels) -> Pixels:
    """Return the pixels along the four sides, to a depth of 1/50 of the short side, as (n,
    channels)."""
    depth = max(1, min(pixels.shape[:2]) // 50)
    sides = (
        pixels[:depth], pixels[-depth:],
        pixels[depth:-depth, :depth], pixels[depth:-depth, -depth:],
    )  # fmt: skip
    return np.concatenate([side.reshape(-1, pixels.shape[2]) for side in sides])

"""Decodes images.

The result is 8-bit RGB or gray (L) in sRGB, upright; alpha is kept only on request. The
size and the memory for decoding are checked before an image is decoded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import simplejpeg
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from pipeline.imaging.color import is_gray_palette, to_srgb
from pipeline.imaging.formats import image_format
from pipeline.imaging.headers import decode_bytes, open_file, page_note
from pipeline.imaging.jpeg_header import read_jpeg_header
from pipeline.imaging.limits import ImageError, ImageLimits, decode_budget

EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif",
    "BMP": "bmp", "AVIF": "avif", "JPEG2000": "jp2", "PPM": "ppm", "ICO": "ico", "HEIF": "heic",
    "JXL": "jxl",
}  # fmt: skip

_GRAY = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION = ExifTags.Base.Orientation
_ANY_SIZE = ImageLimits(1 << 60, 1 << 30, float("inf"))
_LARGE = 100_000_000
"""Pixels of an image that is not decoded for its orientation alone."""
_LATE_ORIENTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What begins a chunk of a PNG that can state its orientation."""

# This module checks the limit before decoding and raises an error; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about oddities in files; the important ones are in the notes.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image (RGB or L, upright) and properties of the file. `width` and `height` are the
    full upright size, even if the image was decoded at a reduced size."""

    image: Image.Image
    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""The transposition that makes an image upright, by Exif orientation."""

DraftTo = int | Callable[[int], int] | None
"""The minimum short side to decode in pixels, a function that computes it from the full short side,
or None for the full size."""


def decode_image(data: bytes, *, max_pixels: int, draft_to: DraftTo = None) -> DecodedImage:
    """Decode `data` to an upright sRGB image of mode RGB or L, with the properties of the file.

    Args:
        max_pixels: images whose header states more pixels are refused before decoding.
        draft_to: a JPEG may be decoded at a reduced size, with a short side of at least this many
            pixels.

    Raises:
        ImageError: it is not an image, has too many pixels, or is animated or damaged.
    """
    with decoded(data, ImageLimits(max_pixels), draft_to) as image:
        return image


@contextmanager
def decoded(
    data: bytes, limits: ImageLimits, draft_to: DraftTo = None, more: int = 0, alpha: bool = False
) -> Iterator[DecodedImage]:
    """Decode like `decode_image`, and hold memory for decoding (`decode_budget`) while the block
    runs. Waits until the memory is free; do not nest blocks, because they can deadlock.

    Args:
        more: bytes of memory that the block itself needs for the image.
        alpha: return transparent images as RGBA (straight) instead of blended with white.

    Raises:
        ImageError: it is not an image, exceeds the limits or the budget, or is animated or damaged.
    """
    with ExitStack() as stack:
        yield _decode(data, limits, draft_to, more, alpha, stack)


def _decode(
    data: bytes, limits: ImageLimits, draft_to: DraftTo, more: int, alpha: bool, stack: ExitStack
) -> DecodedImage:
    """Decode an image; `stack` holds the memory for it."""
    if not data:
        raise ImageError("empty", "no bytes")
    notes: list[str] = []

    def hold(needed: int) -> None:
        stack.enter_context(decode_budget().hold(needed + more))

    try:
        with open_file(data, limits, hold) as file:
            name, mode, size = file.format or "", file.mode, file.size
            if image_format(data) == "ICO":
                name = "ICO"  # also if the image in it is a PNG
            if draft_to is not None and name in ("JPEG", "MPO"):
                _draft(file, draft_to)
            if (needed := decode_bytes(file, size, data)) > 0:
                hold(needed)
            note, asked = page_note(file), file.size
            file.load()
            if file.size != asked:
                raise ImageError("undecodable", f"{file.size} pixels, {asked} by its header")
            image = _apply_orientation(file, notes)
            if image.size != file.size:
                size = (size[1], size[0])
            if image is not file:
                file.close()  # releases its pixels
            profile = file.info.get("icc_profile")
            image = to_srgb(image, profile if isinstance(profile, bytes) else None, notes, alpha)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("too_many_pixels", "out of memory") from None
    except BaseException as error:  # Pillow's plugins raise any exception
        # A panic in a decoder written in Rust is raised as a BaseException.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ImageError("undecodable", f"{type(error).__name__}: {error}") from error
    return DecodedImage(image, name, mode, size[0], size[1], (*notes, *([note] if note else ())))


def _draft(file: Image.Image, draft_to: int | Callable[[int], int]) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 if the short side stays long enough."""
    width, height = file.size
    short_side = draft_to if isinstance(draft_to, int) else draft_to(min(width, height))
    scale = max(1, min(width, height) // short_side)
    file.draft(None, (width // scale, height // scale))


def _apply_orientation(file: Image.Image, notes: list[str]) -> Image.Image:
    try:
        turn = _TRANSPOSITIONS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # noqa: BLE001 a damaged EXIF block must not fail the image
        notes.append(f"EXIF ignored: {error}")
        return file
    return file if turn is None else file.transpose(turn)


class ImageHeader(NamedTuple):
    """The upright size of an image in pixels, and whether it is gray or may have transparent
    pixels."""

    width: int
    height: int
    is_gray: bool
    has_alpha: bool


def image_header(data: bytes, is_part: bool = False) -> ImageHeader:
    """Return the header of an image, without decoding it if it is large.

    Args:
        data: the file, or enough of its beginning.
        is_part: do not ask for more bytes for an orientation that is stated after the pixels.

    Raises:
        ImageError: it is not an image that can be used, or more bytes are needed.
    """
    header = read_jpeg_header(data)
    if header is not None and header.plain:
        return _plain_jpeg_header(data, header.orientation)
    try:
        with open_file(data, _ANY_SIZE, lambda _needed: None) as file:
            width, height = file.size
            if isinstance(file, TiffImageFile):  # some versions of Pillow report it upright
                width, height = (int(file.tag_v2[tag]) for tag in (IMAGEWIDTH, IMAGELENGTH))
            # Pillow decodes a PNG to find EXIF after its pixels
            is_known = width * height > _LARGE or is_part or _ends_without_orientation(data)
            exif = Image.Image.getexif(file) if is_known else file.getexif()
            turn = header.orientation if header else exif.get(_ORIENTATION, 1)
            gray = file.mode in _GRAY or (file.mode == "P" and is_gray_palette(file))
            width, height = (height, width) if turn in (5, 6, 7, 8) else (width, height)
            return ImageHeader(width, height, gray, file.has_transparency_data)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's plugins raise any exception)
        raise ImageError("undecodable", f"{type(error).__name__}: {error}") from None


def _ends_without_orientation(data: bytes) -> bool:
    """Return True if a PNG is complete and nothing after its pixels states its orientation."""
    pixels = data.find(b"IDAT")
    if data[:4] != b"\x89PNG" or data.find(b"IEND", pixels) < 0:
        return False
    return all(data.find(one, pixels) < 0 for one in _LATE_ORIENTATION)


def _plain_jpeg_header(data: bytes, orientation: int) -> ImageHeader:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise ImageError("undecodable", str(error)) from None
    width, height = (height, width) if orientation > 4 else (width, height)
    return ImageHeader(width, height, space == "Gray", has_alpha=False)

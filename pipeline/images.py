"""Decoding, colour and orientation, and the facts recorded of an image.

Everything comes out as 8-bit RGB or gray (L) in sRGB, upright, without alpha.
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.pictures.colour import to_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
"""What is decoded (MPO comes with JPEG). Vector, document and raw formats are not."""

EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif",
    "BMP": "bmp", "AVIF": "avif", "JPEG2000": "jp2", "PPM": "ppm",
}  # fmt: skip

FACTS_SIDE = 256
"""Blur and spread are measured at this short side, in pixels (smaller images as they are)."""

# The limit is checked here, before decoding and with a verdict; Pillow's own only warns.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of every oddity in strangers' files; what matters of them is in the notes.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(Exception):
    """Bytes that give no usable image: `kind` is one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class ImageFacts:
    """What is recorded of an image; see `OriginalRecord`. `notes` says what was odd."""

    format: str
    mode: str
    width: int
    height: int
    phash: str
    blur: float
    spread: float
    detail: str
    notes: tuple[str, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """The fields that an `OriginalRecord` has."""
        return {name: value for name, value in vars(self).items() if name != "notes"}


@dataclass(frozen=True)
class Picture:
    """A decoded image (RGB or L, upright) and what the file was: `width` and `height` are the
    full size after orientation, whatever size was decoded."""

    image: Image.Image
    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


DraftTo = int | Callable[[int], int] | None
"""A short side in pixels that is enough, the same as a function of the full short side, or None
for the full size."""


def open_image(data: bytes, *, max_pixels: int, draft_to: DraftTo = None) -> Image.Image:
    """The image in `data` as upright sRGB, mode RGB or L.

    Args:
        data: the bytes of the file.
        max_pixels: more than this, by the header, is refused before decoding.
        draft_to: a JPEG may be decoded smaller, at a short side of this many pixels or more.

    Raises:
        ImageError: no image, too many pixels, animated, broken.
    """
    return open_picture(data, max_pixels=max_pixels, draft_to=draft_to).image


def open_picture(data: bytes, *, max_pixels: int, draft_to: DraftTo = None) -> Picture:
    """As `open_image`, with what the file was."""
    if not data:
        raise ImageError("empty", "no bytes")
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            _check_header(file, max_pixels)
            name, mode, size = file.format or "", file.mode, file.size
            if draft_to is not None:
                _draft(file, draft_to)
            file.load()
            image = _upright(file, notes)
            if image.size != file.size:
                size = (size[1], size[0])
            image = to_srgb(image, file.info.get("icc_profile"), notes)
    except ImageError:
        raise
    except UnidentifiedImageError:
        if _declares_nothing(data):
            raise ImageError("zero_size", "the header says so") from None
        raise ImageError("undecodable", "no image format that is read here") from None
    except MemoryError:
        raise ImageError("too_many_pixels", "out of memory") from None
    except Exception as error:  # Pillow's plugins raise what they like
        raise ImageError("undecodable", f"{type(error).__name__}: {error}") from error
    return Picture(image, name, mode, size[0], size[1], tuple(notes))


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise where an image of this size is none or too large.

    Raises:
        ImageError: zero_size or too_many_pixels.
    """
    if width <= 0 or height <= 0:
        raise ImageError("zero_size", f"{width} × {height}")
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} × {height} is over {max_pixels}")


def _declares_nothing(data: bytes) -> bool:
    """Whether a PNG, GIF or BMP has no width or no height by its header."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        sides = struct.unpack_from(">II", data.ljust(24, b"\1"), 16)
    elif data[:4] == b"GIF8":
        sides = struct.unpack_from("<HH", data.ljust(10, b"\1"), 6)
    elif data[:2] == b"BM":
        sides = struct.unpack_from("<II", data.ljust(26, b"\1"), 18)
    else:
        return False
    return 0 in sides


def _check_header(file: Image.Image, max_pixels: int) -> None:
    check_size(*file.size, max_pixels)
    # A multi-picture JPEG (MPO) is a photograph with a preview or a second eye beside it.
    frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
    if frames > 1:
        raise ImageError("animated", f"{frames} frames")


def _draft(file: Image.Image, draft_to: int | Callable[[int], int]) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that leaves the short side long enough."""
    width, height = file.size
    short_side = draft_to if isinstance(draft_to, int) else draft_to(min(width, height))
    scale = max(1, min(width, height) // short_side)
    file.draft(None, (width // scale, height // scale))


def _upright(file: Image.Image, notes: list[str]) -> Image.Image:
    try:
        if file.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return file
        return ImageOps.exif_transpose(file)
    except Exception as error:  # noqa: BLE001 a broken EXIF block must not cost the image
        notes.append(f"EXIF ignored: {error}")
        return file


def facts_of(picture: Picture) -> ImageFacts:
    """The facts recorded of a decoded image."""
    gray = picture.image.convert("L")
    short = min(gray.size)
    if short > FACTS_SIDE:
        scale = FACTS_SIDE / short
        size = (max(1, round(gray.width * scale)), max(1, round(gray.height * scale)))
        gray = gray.resize(size, Image.Resampling.BOX)
    values = np.asarray(gray)
    return ImageFacts(
        format=picture.format,
        mode=picture.mode,
        width=picture.width,
        height=picture.height,
        phash=perceptual_hash(gray),
        blur=round(_laplacian_variance(values), 3),
        spread=round(_deviation(gray.histogram()), 3),
        detail=detail_hash(gray),
        notes=picture.notes,
    )


def _laplacian_variance(gray: NDArray[np.uint8]) -> float:
    """The variance of the 4-neighbour Laplacian over the inner pixels (Pech-Pacheco et al.,
    2000): small where an image is out of focus."""
    if min(gray.shape) < 3:
        return 0.0
    wide = gray.astype(np.int16)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1]
    laplacian += wide[1:-1, :-2]
    laplacian += wide[1:-1, 2:]
    laplacian -= 4 * wide[1:-1, 1:-1]
    exact = laplacian.ravel().astype(np.float64)
    # not a dot product: BLAS would start threads for it, and many images are examined at a time
    squares = float(np.einsum("i,i->", exact, exact))
    return squares / exact.size - (float(exact.sum()) / exact.size) ** 2


def _deviation(histogram: list[int]) -> float:
    """The standard deviation of gray values by how often each occurs."""
    counts, level = np.array(histogram, np.float64), np.arange(256.0)
    mean = (counts @ level) / counts.sum()
    return float(np.sqrt(counts @ (level - mean) ** 2 / counts.sum()))


def perceptual_hash(image: Image.Image) -> str:
    """64 bits in hex: which of the 8 × 8 lowest DCT coefficients of the 32 × 32 gray image are
    above their median (pHash; Zauner, 2010)."""
    return _hash(image, 8)


def detail_hash(image: Image.Image) -> str:
    """256 bits in hex: as `perceptual_hash`, of the 16 × 16 lowest coefficients of the 64 × 64
    gray image. What differs in detail alone, such as two of a kind in one pose, differs here."""
    return _hash(image, 16)


def _hash(image: Image.Image, side: int) -> str:
    small = image.convert("L").resize((4 * side, 4 * side), Image.Resampling.LANCZOS)
    rows = _dct_rows(side)
    low = rows @ np.asarray(small, dtype=np.float64) @ rows.T
    ranked, half = np.sort(low, axis=None), low.size // 2
    bits = np.packbits((low > (ranked[half - 1] + ranked[half]) / 2).ravel())
    return bits.tobytes().hex()


@functools.lru_cache(maxsize=2)
def _dct_rows(count: int) -> NDArray[np.float64]:
    """The `count` lowest rows of the DCT-II matrix of length 4 × `count`, unnormalised."""
    k, n = np.arange(count)[:, None], np.arange(4 * count)[None, :]
    return np.asarray(2.0 * np.cos(np.pi * k * (2 * n + 1) / (8.0 * count)))

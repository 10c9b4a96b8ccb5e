"""Conversion of all modes and colour spaces to 8-bit sRGB: RGB, or L for gray."""

from __future__ import annotations

import functools
import io
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_BAND = 1 << 20
"""Images are converted in bands of this many pixels, or of one row."""

_MAX_PROFILE = 4 << 20
"""In bytes. Larger profiles are ignored; profiles that were used are cached."""

_PROFILE_LOCK = threading.Lock()
"""Profiles are opened one at a time; they can be applied in several threads."""


def to_srgb(
    image: Image.Image, profile: bytes | None, notes: list[str], alpha: bool = False
) -> Image.Image:
    """Convert an image of any mode to 8-bit sRGB (RGB or L); blend transparent pixels with white.

    The image is converted in bands, so that a large image needs memory only for itself and the
    result.

    Args:
        image: the decoded image.
        profile: the ICC profile of the file; a damaged one is ignored with a line in `notes`.
        notes: receives a line per oddity.
        alpha: keep transparency: the result is RGBA (straight) if the image has any.
    """
    if profile and len(profile) > _MAX_PROFILE:
        notes.append(f"colour profile ignored: {len(profile)} bytes")
        profile = None
    if image.mode in ("RGB", "L") and not profile and not image.has_transparency_data:
        return image
    levels = _levels(image) if _is_deep(image) else (0.0, 0.0)
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        return _convert(image, profile, notes, levels, alpha)
    odd: dict[str, None] = {}
    whole: Image.Image | None = None
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        found: list[str] = []
        band = _convert(image.crop(box), profile, found, levels, alpha)
        odd.update(dict.fromkeys(found))
        if whole is None:
            whole = Image.new(band.mode, image.size)
        whole.paste(band, (0, top))
    assert whole is not None
    notes.extend(odd)
    return whole


def _convert(
    image: Image.Image,
    profile: bytes | None,
    notes: list[str],
    levels: tuple[float, float],
    keep_alpha: bool = False,
) -> Image.Image:
    """Convert like `to_srgb`, without bands; `levels` are the values that become black and
    white."""
    alpha = None
    if _is_deep(image):
        hidden = image.info.get("transparency")  # one value of gray
        if isinstance(hidden, int):
            alpha = Image.fromarray(np.where(np.asarray(image) == hidden, 0, 255).astype(np.uint8))
        image = _deep_gray(image, levels)
    elif image.has_transparency_data:
        hidden = image.info.get("transparency")
        if isinstance(hidden, tuple) and max(hidden) > 255:
            # of a PNG with 16 bits per channel, of which Pillow keeps the upper 8
            image.info["transparency"] = tuple(value >> 8 for value in hidden)
        image = image.convert("RGBA" if image.mode not in ("LA", "La") else "LA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode.removesuffix("A"))
    elif image.mode == "P":
        image = image.convert("L" if is_gray_palette(image) else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        image = _apply_profile(image, profile, notes)
    if image.mode == "LAB":
        image = ImageCms.applyTransform(image, _lab_transform()) or image
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    if alpha is not None and keep_alpha:
        image = image.convert("RGB")
        image.putalpha(alpha)
    elif alpha is not None:
        white = Image.new(image.mode, image.size, "white")
        image = Image.composite(image, white, alpha)
    return image


def is_gray_palette(image: Image.Image) -> bool:
    """Return True if the palette contains only grays."""
    palette = np.asarray(image.convert("RGB").resize((1, 1)) if image.palette is None else
                         _palette(image))  # fmt: skip
    return bool((palette == palette[..., :1]).all())


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    entries = image.getpalette("RGB") or []
    return np.array(entries, dtype=np.uint8).reshape(-1, 3)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _levels(image: Image.Image) -> tuple[float, float]:
    """Return the values of 16-bit, 32-bit and float gray that become black and white. Integers are
    treated as 16-bit if they fit; other ranges end at their own maximum."""
    low, high, rows = 0.0, 0.0, max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        values = _finite_values(image.crop(box))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode == "F":
        return low, 1.0 if high <= 1.0 else 255.0 if high <= 255.0 else high
    return low, 65535.0 if high <= 65535.0 else high


def _finite_values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _deep_gray(image: Image.Image, levels: tuple[float, float]) -> Image.Image:
    """Convert 16-bit, 32-bit and float gray to 8 bits by scaling, without clipping."""
    low, full = levels
    scaled = np.rint((_finite_values(image) - low) * (255.0 / (full - low)))
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


@functools.lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from `profile` to sRGB; None if the profile is sRGB.

    Raises:
        ImageCms.PyCMSError: the profile is damaged, or does not fit the mode.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, _srgb(), mode, "RGB")


def _apply_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        with _PROFILE_LOCK:
            transform = _transform(profile, image.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        notes.append(f"colour profile ignored: {error}")
        return image
    if converted is None:
        return image
    return converted.convert("L") if image.mode == "L" else converted

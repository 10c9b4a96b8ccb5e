"""Pixels of every mode and colour space as 8-bit sRGB: RGB, or L for gray."""

from __future__ import annotations

import functools
import io
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_LOCK = threading.Lock()
"""Profiles are opened one at a time; applying one may go on in many threads."""


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """8-bit sRGB, RGB or L, from any mode; alpha is laid over white.

    Args:
        image: the decoded image.
        profile: the file's ICC profile; a broken one is ignored, with a line in `notes`.
        notes: gets what was odd.
    """
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA" if image.mode not in ("LA", "La") else "LA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode.removesuffix("A"))
    elif image.mode == "P":
        image = image.convert(_palette_mode(image))
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode.startswith("I") or image.mode == "F":
        image = _deep_gray(image)
    if profile and image.mode in ("RGB", "L", "CMYK"):
        image = _by_profile(image, profile, notes)
    if image.mode == "LAB":
        image = ImageCms.applyTransform(image, _lab_transform()) or image
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    if alpha is not None:
        white = Image.new(image.mode, image.size, "white")
        image = Image.composite(image, white, alpha)
    return image


def _palette_mode(image: Image.Image) -> str:
    """L where a palette holds grays alone."""
    palette = np.asarray(image.convert("RGB").resize((1, 1)) if image.palette is None else
                         _palette(image))  # fmt: skip
    gray = bool((palette == palette[..., :1]).all())
    return "L" if gray else "RGB"


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    entries = image.getpalette("RGB") or []
    return np.array(entries, dtype=np.uint8).reshape(-1, 3)


def _deep_gray(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating gray as 8 bits: scaled, not clipped.

    Integers are taken as 16-bit where they fit; other ranges by their own maximum.
    """
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if image.mode == "F":
        full = 1.0 if high <= 1.0 else 255.0 if high <= 255.0 else high
    else:
        full = 65535.0 if high <= 65535.0 else high
    low = min(low, 0.0)
    scaled = np.rint((values - low) * (255.0 / (full - low)))
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


@functools.lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from `profile` to sRGB; None where it is sRGB already.

    Raises:
        ImageCms.PyCMSError: the profile is broken, or is for other pixels than `mode`.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    return ImageCms.buildTransform(source, _srgb(), mode, "RGB")


def _by_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        with _LOCK:
            transform = _transform(profile, image.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notes.append(f"colour profile ignored: {error}")
        return image
    if converted is None:
        return image
    return converted.convert("L") if image.mode == "L" else converted

"""Computes the crop boxes of an image, by crop mode; `MODES` is the registry.

A mode decodes the image only if it needs the pixels, and at the smallest sufficient scale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PIL import Image

from pipeline.imaging.crops import Box, center_box, center_boxes, expand_box, pad_box
from pipeline.imaging.objects import DETECT_SIDE, BackgroundModel, find_object
from pipeline.imaging.pixels import LazyImage, as_image, scale_for
from pipeline.options import ShardOptions
from pipeline.plugins import load_plugin
from pipeline.select.selection import SelectedImage

HOOK_GROUP = "shellgan.crops"
"""The entry point group of crop hooks."""
Hook = Callable[[Image.Image], Iterable[tuple[float, float, float, float]]]
"""An upright image (RGB or L, any scale) → boxes (left, top, right, bottom), coordinates from 0 to
1."""


@dataclass(frozen=True)
class CropResult:
    """The boxes of an image's samples, and the model of its plain background if it was detected.

    `used_fallback` is True if the mode found nothing and the center was used.
    """

    boxes: list[Box]
    background: BackgroundModel | None = None
    used_fallback: bool = False


Mode = Callable[[LazyImage, SelectedImage, ShardOptions], CropResult]


def find_crops(original: LazyImage, image: SelectedImage, options: ShardOptions) -> CropResult:
    """Return the crop boxes of an image's samples.

    Raises:
        ImageError: the mode needs the pixels, and the image cannot be decoded.
        UserError: the hook is not installed.
    """
    crops = MODES[options.crop](original, image, options)
    if options.background and crops.background is None and options.crop != "object":
        return CropResult(crops.boxes, _find_background(original, options), crops.used_fallback)
    return crops


def _aspect(options: ShardOptions) -> float:
    height, width = options.size
    return width / height


def _center(original: LazyImage, _image: SelectedImage, options: ShardOptions) -> CropResult:
    return CropResult(center_boxes(*original.size, _aspect(options), options.crops))


def _pad(original: LazyImage, _image: SelectedImage, options: ShardOptions) -> CropResult:
    return CropResult([pad_box(*original.size, _aspect(options))])


def _none(original: LazyImage, _image: SelectedImage, _options: ShardOptions) -> CropResult:
    width, height = original.size
    return CropResult([Box(0, 0, width, height)])


def _object(original: LazyImage, _image: SelectedImage, options: ShardOptions) -> CropResult:
    background = _find_background(original, options)
    if background is None:
        return _fallback(original, options)
    found = background.box(*original.size)
    box = expand_box(found, options.margin, _aspect(options), *original.size)
    return CropResult([box], background)


def _box(original: LazyImage, image: SelectedImage, options: ShardOptions) -> CropResult:
    return _largest_boxes(original, options, [Box(*sides) for sides in image.row.boxes])


def _hook(original: LazyImage, _image: SelectedImage, options: ShardOptions) -> CropResult:
    width, height = original.size
    pixels = original.pixels(_detection_scale(original, options))
    boxes = [
        Box(left * width, top * height, right * width, bottom * height)
        for left, top, right, bottom in load_hook(options.hook)(as_image(pixels))
    ]
    return _largest_boxes(original, options, boxes)


MODES: dict[str, Mode] = {
    "center": _center,
    "pad": _pad,
    "object": _object,
    "box": _box,
    "hook": _hook,
    "none": _none,
}


def _largest_boxes(original: LazyImage, options: ShardOptions, boxes: list[Box]) -> CropResult:
    """Return the largest boxes with their margins; the center if none is in the image."""
    inside = [box.within(*original.size) for box in boxes]
    inside = [box for box in inside if box.width >= 1 and box.height >= 1]
    inside.sort(key=lambda box: (-box.width * box.height, box.left, box.top))
    if not inside:
        return _fallback(original, options)
    aspect = _aspect(options)
    return CropResult(
        [expand_box(box, options.margin, aspect, *original.size) for box in inside[: options.crops]]
    )


def _fallback(original: LazyImage, options: ShardOptions) -> CropResult:
    return CropResult([center_box(*original.size, _aspect(options))], used_fallback=True)


def _find_background(original: LazyImage, options: ShardOptions) -> BackgroundModel | None:
    return find_object(original.pixels(_detection_scale(original, options)))


def _detection_scale(original: LazyImage, options: ShardOptions) -> float:
    """Return a scale that suffices to detect objects and to render the whole image, so that it is
    decoded only once."""
    height, width = options.size
    whole = Box(0, 0, *original.size)
    return max(2 * DETECT_SIDE / min(original.size), scale_for(whole, width, height))


@functools.lru_cache(maxsize=8)
def load_hook(name: str) -> Hook:
    """Return the crop hook that an installed package provides under this name.

    Raises:
        UserError: it does not exist or cannot be loaded.
    """
    hook: Hook = load_plugin(HOOK_GROUP, name, "shards.hook")
    return hook

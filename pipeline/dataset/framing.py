"""Which boxes an image is cropped to, by crop mode; `MODES` is the registry.

A mode looks at the pixels only if it has to, and only at as many as it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points

from PIL import Image

from pipeline.contract import UserError
from pipeline.dataset.kept import KeptImage
from pipeline.options import Shards
from pipeline.pictures.crops import Box, center_box, center_boxes, frame_box, pad_box
from pipeline.pictures.objects import DETECT_SIDE, Ground, find_object
from pipeline.pictures.pixels import Original, as_image, scale_for

HOOKS = "shellgan.crops"
"""The entry point group of crop hooks."""
Hook = Callable[[Image.Image], Iterable[tuple[float, float, float, float]]]
"""An upright image (RGB or L, any scale) → boxes (left, top, right, bottom), sides from 0 to 1."""


@dataclass(frozen=True)
class Framing:
    """The boxes of an image's samples; `ground` where an object on a plain one was looked for.

    `fell_back` says that the mode found nothing and the center was taken.
    """

    boxes: list[Box]
    ground: Ground | None = None
    fell_back: bool = False


Mode = Callable[[Original, KeptImage, Shards], Framing]


def frame(original: Original, image: KeptImage, options: Shards) -> Framing:
    """The boxes of an image's samples.

    Raises:
        ImageError: the image had to be looked at and cannot be decoded.
        UserError: the hook is not installed.
    """
    framing = MODES[options.crop](original, image, options)
    if options.background and framing.ground is None and options.crop != "object":
        return Framing(framing.boxes, _ground(original, options), framing.fell_back)
    return framing


def _aspect(options: Shards) -> float:
    height, width = options.size
    return width / height


def _center(original: Original, _image: KeptImage, options: Shards) -> Framing:
    return Framing(center_boxes(*original.size, _aspect(options), options.crops))


def _pad(original: Original, _image: KeptImage, options: Shards) -> Framing:
    return Framing([pad_box(*original.size, _aspect(options))])


def _none(original: Original, _image: KeptImage, _options: Shards) -> Framing:
    width, height = original.size
    return Framing([Box(0, 0, width, height)])


def _object(original: Original, _image: KeptImage, options: Shards) -> Framing:
    ground = _ground(original, options)
    if ground is None:
        return _fallback(original, options)
    found = ground.box(*original.size)
    return Framing([frame_box(found, options.margin, _aspect(options), *original.size)], ground)


def _box(original: Original, image: KeptImage, options: Shards) -> Framing:
    return _framed(original, options, [Box(*sides) for sides in image.row.boxes])


def _hook(original: Original, _image: KeptImage, options: Shards) -> Framing:
    width, height = original.size
    pixels = original.pixels(_look_scale(original, options))
    boxes = [
        Box(left * width, top * height, right * width, bottom * height)
        for left, top, right, bottom in load_hook(options.hook)(as_image(pixels))
    ]
    return _framed(original, options, boxes)


MODES: dict[str, Mode] = {
    "center": _center,
    "pad": _pad,
    "object": _object,
    "box": _box,
    "hook": _hook,
    "none": _none,
}


def _framed(original: Original, options: Shards, boxes: list[Box]) -> Framing:
    """The largest boxes, each framed; the center where there is none in the image."""
    inside = [box.within(*original.size) for box in boxes]
    inside = [box for box in inside if box.width >= 1 and box.height >= 1]
    inside.sort(key=lambda box: (-box.width * box.height, box.left, box.top))
    if not inside:
        return _fallback(original, options)
    aspect = _aspect(options)
    return Framing(
        [frame_box(box, options.margin, aspect, *original.size) for box in inside[: options.crops]]
    )


def _fallback(original: Original, options: Shards) -> Framing:
    return Framing([center_box(*original.size, _aspect(options))], fell_back=True)


def _ground(original: Original, options: Shards) -> Ground | None:
    return find_object(original.pixels(_look_scale(original, options)))


def _look_scale(original: Original, options: Shards) -> float:
    """The scale to look at an image: enough to find things, and to crop it whole afterwards."""
    height, width = options.size
    whole = Box(0, 0, *original.size)
    return max(2 * DETECT_SIDE / min(original.size), scale_for(whole, width, height))


@functools.lru_cache(maxsize=8)
def load_hook(name: str) -> Hook:
    """The crop hook that an installed package offers under this name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    offered = {entry.name: entry for entry in entry_points(group=HOOKS)}
    if name not in offered:
        there = ", ".join(sorted(offered)) or "none"
        raise UserError(f"shards.hook: {name!r} is no entry point of {HOOKS}; there are: {there}")
    try:
        hook: Hook = offered[name].load()
    except ImportError as error:
        raise UserError(f"shards.hook: {name!r} cannot be loaded ({error})") from None
    return hook

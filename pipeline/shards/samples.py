"""Turns one original into training samples: cropped, resized, encoded, with their provenance.

`MODES` is the registry of crop modes. A mode decodes the image only if it needs the pixels, and at
the smallest sufficient scale.

The result depends only on the bytes, the recorded properties and the options.
"""

from __future__ import annotations

import functools
import io
import json
import struct
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.imaging import alpha, objects
from pipeline.imaging.center_crop import encode_jpeg
from pipeline.imaging.crops import Box, center_box, center_boxes, expand_box, pad_box
from pipeline.imaging.limits import ImageError
from pipeline.imaging.pixels import LazyImage, as_image, mode_of, render, scale_for
from pipeline.imaging.resampling import Pixels
from pipeline.options import ShardOptions
from pipeline.plugins import load_plugin
from pipeline.select.selection import SelectedImage

HOOK_GROUP = "shellgan.crops"
"""The entry point group of crop hooks."""
Hook = Callable[[Image.Image], Iterable[tuple[float, float, float, float]]]
"""An upright image (RGB or L, any scale) → boxes (left, top, right, bottom), coordinates from 0 to
1."""

FORMATS = ("PNG", "WEBP", "JPEG")
"""Pillow's names of the formats of samples."""
DEFAULT_JPEG_QUALITY = 95
PNG_LEVEL = 6

PROVENANCE_FLAGS = ("enlarged", "fell_back", "plain")
"""Flags in a sample's provenance: the crop box has fewer pixels than the sample; the crop mode
found nothing and the center was used; the plain background was replaced."""
OPAQUE_FLAG = "opaque"
"""A flag of samples with four channels: no pixel is transparent."""


def flags_of(channels: int) -> tuple[str, ...]:
    """Return the flags in the provenance of samples with this number of channels."""
    return (*PROVENANCE_FLAGS, OPAQUE_FLAG) if channels == 4 else PROVENANCE_FLAGS


@dataclass(frozen=True)
class CropResult:
    """The boxes of an image's samples, and the model of its plain background if it was detected.

    `used_fallback` is True if the mode found nothing and the center was used.
    """

    boxes: list[Box]
    background: objects.BackgroundModel | None = None
    used_fallback: bool = False


CropMode = Callable[[LazyImage, SelectedImage, ShardOptions], CropResult]


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
    pixels = original.pixels(_detection_scale(original, options))
    if alpha.has_transparent_parts(pixels):  # it is cut out already
        return _largest_boxes(original, options, alpha.visible_box(pixels, *original.size))
    background = objects.find_object(pixels[:, :, :3])
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
        for left, top, right, bottom in load_hook(options.hook)(as_image(alpha.over_white(pixels)))
    ]
    return _largest_boxes(original, options, boxes)


MODES: dict[str, CropMode] = {
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


def _find_background(original: LazyImage, options: ShardOptions) -> objects.BackgroundModel | None:
    return objects.find_object(original.pixels(_detection_scale(original, options)))


def _detection_scale(original: LazyImage, options: ShardOptions) -> float:
    """Return a scale that suffices to detect objects and to render the whole image, so that it is
    decoded only once."""
    height, width = options.size
    whole = Box(0, 0, *original.size)
    return max(2 * objects.DETECT_SIDE / min(original.size), scale_for(whole, width, height))


@functools.lru_cache(maxsize=8)
def load_hook(name: str) -> Hook:
    """Return the crop hook that an installed package provides under this name.

    Raises:
        UserError: it does not exist or cannot be loaded.
    """
    hook: Hook = load_plugin(HOOK_GROUP, name, "shards.hook")
    return hook


@dataclass(frozen=True)
class Sample:
    """A training sample: its key in the shard, (height, width, channels) pixels, crop box.

    RGBA has straight alpha. `notes` contains the flags (`flags_of`) that are true.
    """

    key: str
    pixels: Pixels
    box: Box
    notes: tuple[str, ...] = ()


def make_samples(data: bytes, image: SelectedImage, options: ShardOptions) -> list[Sample]:
    """Return the samples of one image: one, or up to `options.crops` with keys KEY_0, KEY_1, ….

    Raises:
        ImageError: the bytes cannot be decoded.
        UserError: the crop hook is not installed.
    """
    size = image.record.width, image.record.height
    mode = mode_of(options.channels)
    with closing(LazyImage(data, size, mode, options.linear_light)) as original:
        return _samples_of(original, image, options)


def _samples_of(original: LazyImage, image: SelectedImage, options: ShardOptions) -> list[Sample]:
    crops = find_crops(original, image, options)
    samples = []
    for number, box in enumerate(crops.boxes):
        key = image.key if options.crops == 1 else f"{image.key}_{number}"
        pixels = render(original, box, options.size)
        notes = ["fell_back"] if crops.used_fallback else []
        if options.background and crops.background is not None:
            colour = background_colour(options)
            pixels = objects.replace_background(
                pixels, crops.background, box, original.size, colour
            )
            notes.append("plain")
        if options.channels == 4:
            if crops.background is not None:
                pixels = objects.cut_out(pixels[:, :, :3], crops.background, box, original.size)
            pixels = alpha.define_hidden_colours(pixels)
            notes += [OPAQUE_FLAG] if alpha.is_opaque(pixels) else []
        if box.height < options.size[0] or box.width < options.size[1]:
            notes.append("enlarged")
        samples.append(Sample(key, pixels, box, tuple(notes)))
    return samples


def background_colour(options: ShardOptions) -> tuple[int, ...]:
    """Return the new background's colour, one value per channel (gray by ITU-R BT.601)."""
    red, green, blue = bytes.fromhex(options.background[1:])
    if options.channels == 3:
        return red, green, blue
    return (round(0.299 * red + 0.587 * green + 0.114 * blue),)


def encode(pixels: Pixels, options: ShardOptions) -> bytes:
    """Encode pixels, (height, width, channels) uint8, in the format of the options."""
    quality = options.quality
    if options.format == "jpg":
        return encode_jpeg(pixels, quality or DEFAULT_JPEG_QUALITY)
    image = as_image(pixels)
    file = io.BytesIO()
    if options.format == "png":
        image.save(file, "PNG", compress_level=PNG_LEVEL)
    elif quality is None:
        image.save(file, "WEBP", lossless=True, method=0, quality=0, exact=True)
    else:
        image.save(file, "WEBP", quality=quality, method=4)  # alpha is always lossless
    return file.getvalue()


def decode(data: bytes, channels: int, size: tuple[int, int] | None = None) -> Pixels:
    """Return the pixels, (height, width, channels) uint8, of a stored sample (WebP stores gray as
    colour, and opaque RGBA as RGB).

    Args:
        size: expected (height, width), checked before decoding.

    Raises:
        ImageError: the sample has another size or cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if size is not None and image.size != (size[1], size[0]):
                found = f"{image.width} × {image.height} pixels"
                raise ImageError("damaged", f"{found}, not {size[1]} × {size[0]}")
            pixels = np.asarray(image.convert(mode_of(channels)))
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise ImageError("undecodable", str(error)) from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def provenance(sample: Sample, image: SelectedImage) -> dict[str, Any]:
    """Return the provenance of a sample, its KEY.json in the shard."""
    record = image.record
    opt_out = {} if record.opt_out is None else {"opt_out": record.opt_out}
    return {
        **image.row.to_json(),
        **opt_out,
        "crop": sample.box.to_json(),
        "notes": {note: note in sample.notes for note in flags_of(sample.pixels.shape[2])},
        "original": {
            "sha256": record.sha256, "bytes": record.bytes, "format": record.format,
            "mode": record.mode, "width": record.width, "height": record.height,
        },
    }  # fmt: skip


def sample_members(
    sample: Sample, image: SelectedImage, number: int | None, options: ShardOptions
) -> dict[str, bytes]:
    """Return the members of a sample in a shard, by name: the image, its provenance, its class."""
    text = json.dumps(provenance(sample, image), ensure_ascii=False, sort_keys=True)
    files = {
        f"{sample.key}.{options.format}": encode(sample.pixels, options),
        f"{sample.key}.json": text.encode(errors="replace"),
    }
    if number is not None:
        files[f"{sample.key}.cls"] = str(number).encode()
    return files

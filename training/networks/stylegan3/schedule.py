"""The frequencies, sizes and channels of StyleGAN3's layers (Karras 2021, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.options.styled import StyleGan3Generator

_SMALLEST = 8
"""Pixels per side of an image."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps that leave a layer: `channels` of `size` × `size` px, with `rate` samples per image
    side. `cutoff` and `half_width` of the transition band are in cycles per image side; the filter
    passes frequencies below the cutoff."""

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int
    critical: bool


def layer_maps(options: StyleGan3Generator, shape: ImageShape) -> list[LayerMaps]:
    """Return the maps of all layers, of which the last one makes the image.

    Raises:
        UserError: the image is not a square of 8, 16, 32, … px, or the options give a layer
            without a transition band.
    """
    side, count = shape.height, options.layers
    if shape.width != side or side < _SMALLEST or side & (side - 1):
        raise UserError(
            f"resolution: {shape.width}×{shape.height} px is not supported by stylegan3 (it must "
            "be a square with sides of 8, 16, 32, … px); use --data.fit crop and --resolution"
        )
    if options.critical >= count:
        raise UserError(
            f"generator.critical: {options.critical} of {count} layers; at least one layer must "
            "not be sampled critically"
        )
    last_cutoff = side / 2
    last_stopband = last_cutoff * options.last_stopband
    made = []
    for number in range(count + 1):
        place = min(number / (count - options.critical), 1)
        cutoff = options.first_cutoff * (last_cutoff / options.first_cutoff) ** place
        stopband = options.first_stopband * (last_stopband / options.first_stopband) ** place
        rate = 2 ** math.ceil(math.log2(min(stopband * 2, side)))
        half_width = max(stopband, rate / 2) - cutoff
        if half_width <= 0 or rate < 1:
            raise UserError(
                f"generator.first_stopband, generator.last_stopband: layer {number} has cutoff "
                f"{cutoff:g} and stopband {stopband:g}; the stopband must be larger"
            )
        is_last = number == count
        made.append(
            LayerMaps(
                cutoff,
                half_width,
                rate,
                side if number >= count - 1 else rate + 2 * options.margin,
                shape.channels if is_last else _channels(options, cutoff),
                number >= count - options.critical,
            )
        )
    return made


def _channels(options: StyleGan3Generator, cutoff: float) -> int:
    factor = 2 if options.equivariance == "rotation" else 1
    width = min(factor * options.channel_base / 2 / cutoff, factor * options.channel_max)
    return max(1, round(width))

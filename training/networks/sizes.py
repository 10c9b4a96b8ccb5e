"""The number of layers for a resolution, and their widths."""

from __future__ import annotations

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.options.base import ConvWidthOptions


def doublings(shape: ImageShape) -> int:
    """Return how often the smallest map (4 to 7 px high) is doubled to give the image.

    28 px is 7 px doubled twice, powers of two are 4 px doubled; maps of a non-square image keep its
    aspect.

    Raises:
        UserError: the size is not supported.
    """
    count = count_doublings(shape.height, shape.width)
    if not count:
        raise UserError(
            f"resolution: {shape.width}×{shape.height} px is not supported (it must be 4 to 7 px "
            "times a power of two); use 28, 32, 64, 128 or 256"
        )
    return count


def count_doublings(height: int, width: int) -> int:
    """Like `doublings`; 0 if the size is not supported."""
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= 4:
        height, width, count = height // 2, width // 2, count + 1
    return count if min(height, width) <= 7 else 0


def widths(options: ConvWidthOptions, count: int) -> list[int]:
    """Return the channels of the `count` hidden layers, from the image inwards.

    Raises:
        UserError: the options give another number of layers.
    """
    multipliers = options.multipliers or tuple(2**layer for layer in range(count))
    if len(multipliers) != count:
        raise UserError(
            f"multipliers: {len(multipliers)} layers given, this resolution has {count}"
        )
    maps = [options.width * multiplier for multiplier in multipliers]
    return [min(options.max_width, size) if options.max_width else size for size in maps]


def attention_at(options: ConvWidthOptions, heights: list[int]) -> int:
    """Return the height of the maps followed by self-attention (0: none).

    Raises:
        UserError: no hidden layer has maps of the configured height.
    """
    if options.attention and options.attention not in heights:
        raise UserError(
            f"attention: no maps are {options.attention} px high; choose from "
            f"{', '.join(map(str, sorted(heights)))}"
        )
    return options.attention

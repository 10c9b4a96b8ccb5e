"""The number of layers for a resolution, and their widths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
            f"multipliers: {len(multipliers)} layers given, this resolution has {count}; give "
            f"{count} numbers, or none for 1, 2, 4, 8, …"
        )
    maps = [options.width * multiplier for multiplier in multipliers]
    return [min(options.max_width, size) if options.max_width else size for size in maps]


def attention_at(options: ConvWidthOptions, heights: list[int]) -> int:
    """Return the height of the maps followed by self-attention (0: none).

    Raises:
        UserError: the configured height is not one of `heights`.
    """
    if options.attention and options.attention not in heights:
        raise UserError(
            f"attention: no maps are {options.attention} px high; choose from "
            f"{', '.join(map(str, [0, *sorted(heights)]))} (0: no attention)"
        )
    return options.attention


@contextmanager
def name_section(section: str, options: object) -> Iterator[None]:
    """Put `section` before the key in the message of a UserError, if it is a key of `options`: a
    layer does not know whose options it has."""
    try:
        yield
    except UserError as error:
        if hasattr(options, str(error).split(":")[0]):
            raise UserError(f"{section}.{error}") from None
        raise

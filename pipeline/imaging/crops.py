"""Crop boxes, in pixels of the upright image.

Pure geometry. A box may extend beyond the image; `pixels.render` fills the outside.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; left and top inclusive, right and bottom exclusive; not rounded."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def within(self, width: float, height: float) -> Box:
        """Return the part of the box inside an image of this size."""
        return Box(
            max(0.0, self.left), max(0.0, self.top),
            min(float(width), self.right), min(float(height), self.bottom),
        )  # fmt: skip

    def scaled(self, by: float) -> Box:
        return Box(self.left * by, self.top * by, self.right * by, self.bottom * by)

    def to_json(self) -> list[float]:
        return [round(side, 2) for side in (self.left, self.top, self.right, self.bottom)]


def center_box(width: int, height: int, aspect: float) -> Box:
    """Return the largest centred box with this aspect (width / height)."""
    box_width = min(float(width), height * aspect)
    box_height = min(float(height), width / aspect)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return Box(left, top, left + box_width, top + box_height)


def pad_box(width: int, height: int, aspect: float) -> Box:
    """Return the smallest box with this aspect that contains the whole image in its centre."""
    box_width = max(float(width), height * aspect)
    box_height = max(float(height), width / aspect)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return Box(left, top, left + box_width, top + box_height)


def center_boxes(width: int, height: int, aspect: float, most: int) -> list[Box]:
    """Return evenly spaced windows along the longer side that overlap by at most half.

    An image that is hardly longer than a window gets one window, in its centre.
    """
    first = center_box(width, height, aspect)
    slack = max(width - first.width, height - first.height)
    along = first.width if width - first.width >= height - first.height else first.height
    count = min(most, 1 + int(2 * slack / along))
    if count == 1:
        return [first]
    starts = [slack * number / (count - 1) for number in range(count)]
    if width - first.width >= height - first.height:
        return [Box(start, first.top, start + first.width, first.bottom) for start in starts]
    return [Box(first.left, start, first.right, start + first.height) for start in starts]


def expand_box(found: Box, margin: float, aspect: float, width: int, height: int) -> Box:
    """Return the smallest box with this aspect that contains `found` and its margin.

    The margin is a fraction of the longer side of `found`. Along each axis, the box is moved into
    the image if it fits; otherwise it is centred on the image and extends beyond both sides.
    """
    around = margin * max(found.width, found.height)
    wide, high = found.width + 2 * around, found.height + 2 * around
    wide, high = max(wide, high * aspect), max(high, wide / aspect)
    left = (found.left + found.right - wide) / 2
    top = (found.top + found.bottom - high) / 2
    left = min(max(left, 0.0), width - wide) if wide <= width else (width - wide) / 2
    top = min(max(top, 0.0), height - high) if high <= height else (height - high) / 2
    return Box(left, top, left + wide, top + high)

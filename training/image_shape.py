"""The shape of images, from the shards to the networks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageShape:
    """The shape of the images that a network generates or classifies: size in pixels, 1, 3 or
    4 channels (`training.transparency`), number of classes."""

    height: int
    width: int
    channels: int
    classes: int = 0

"""The embedded gallery with plain pictures, because drawing a shell takes a tenth of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.demo.cache import encode, image_path, write_file_atomic
from pipeline.demo.gallery import Gallery
from pipeline.demo.layout import SIZES
from pipeline.demo.shells import DRAWING


def plain_gallery(count: int, seed: int, cache: Path) -> Gallery:
    """Return the gallery of `count` specimens with all its pictures in `cache`: squares of random
    colours on a light ground, different for each specimen."""
    gallery = Gallery(count, seed, cache)
    cache.mkdir(parents=True, exist_ok=True)
    for one in gallery.specimens():
        for side in sorted(SIZES.values()):
            path = image_path(cache, DRAWING, seed, one.index, side, one.kind)
            if not path.exists():
                write_file_atomic(path, encode(plain_picture(one.index, side), one.kind))
    return gallery


def plain_picture(number: int, side: int) -> Image.Image:
    """Draw the picture of a number, `side` pixels square."""
    colors = np.random.default_rng(number).integers(0, 200, (12, 12, 3), dtype=np.uint8)
    inner = 3 * side // 4
    picture = Image.new("RGB", (side, side), (236, 236, 236))
    squares = Image.fromarray(colors).resize((inner, inner), Image.Resampling.NEAREST)
    picture.paste(squares, (side // 8, side // 8))
    return picture

"""Draws the numbered specimens of a collection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.demo import families
from pipeline.demo.catalogue import FAMILIES, place, species_key
from pipeline.demo.cowrie import cowrie
from pipeline.demo.light import Surface, photograph
from pipeline.demo.randomness import generator
from pipeline.demo.scallop import scallop

DRAWING = 1
"""Number of the way of drawing; a picture kept from another one is out of date."""

Build = Callable[[np.random.Generator, np.random.Generator, int], list[Surface]]

BUILDERS: dict[str, Build] = {
    "turret": families.turret,
    "cone": families.cone,
    "scallop": scallop,
    "whelk": families.whelk,
    "cowrie": cowrie,
    "nautilus": families.nautilus,
    "top": families.top,
    "moon": families.moon,
    "murex": families.murex,
    "sundial": families.sundial,
}


def draw(seed: int, index: int, size: int) -> Image.Image:
    """Draw specimen ``index`` (>= 0) of collection ``seed`` as a size x size RGB image.

    The shell fills about four fifths of the frame (sides in pixels) on a plain off-white
    ground; the same three numbers always give the same pixels.
    """
    family_number, number = place(index)
    family = FAMILIES[family_number]
    key = species_key(seed, family, number)
    specimen = generator("specimen", seed, index)
    surfaces = BUILDERS[family.name](generator("form", key), specimen, key)
    return photograph(surfaces, size, oversample=2 if size >= 128 else 3)

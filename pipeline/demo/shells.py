"""Draws the numbered specimens of a collection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.demo import families
from pipeline.demo.catalogue import FAMILIES, place, species_key
from pipeline.demo.cowrie import cowrie
from pipeline.demo.light import Frame, Surface, photograph
from pipeline.demo.randomness import generator
from pipeline.demo.scallop import scallop
from pipeline.demo.spiral import rotate_points

DRAWING = 1
"""Version of the drawing code; images drawn by another version are out of date."""

TILT = np.array([8.0, 5.0, 4.0])
"""Largest rotation in degrees from the pose of the family: yaw, pitch, roll."""
OFF_CENTRE = 0.02
"""Largest distance of a shell's centre from the image's, as a fraction of the side."""

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


def tilt_shell(surfaces: list[Surface], hand: np.random.Generator) -> list[Surface]:
    """Rotate a shell slightly, at random."""
    yaw, pitch, roll = (float(turn) for turn in hand.uniform(-1, 1, 3) * TILT)
    return [
        Surface(rotate_points(surface.points, yaw, pitch, roll), surface.keep, surface.paint)
        for surface in surfaces
    ]


def draw(seed: int, index: int, size: int) -> Image.Image:
    """Draw specimen ``index`` (>= 0) of collection ``seed`` as a size x size RGB image.

    The shell fills about four fifths of the frame (its side in pixels) on a plain off-white
    background; the same three numbers always give the same pixels.
    """
    family_number, number = place(index)
    family = FAMILIES[family_number]
    key = species_key(seed, family, number)
    specimen = generator("specimen", seed, index)
    surfaces = BUILDERS[family.name](generator("form", key), specimen, key)
    hand = generator("hand", seed, index)
    frame = Frame(
        fill=float(hand.uniform(0.74, 0.85)),
        right=float(hand.uniform(-OFF_CENTRE, OFF_CENTRE)),
        up=float(hand.uniform(-OFF_CENTRE, OFF_CENTRE)),
    )
    return photograph(tilt_shell(surfaces, hand), size, frame, oversample=2 if size >= 128 else 3)

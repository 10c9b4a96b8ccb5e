"""Natural colours of shells, by family."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Palette:
    """sRGB colours in [0, 1]: base, two pigments, and the inside of the aperture."""

    ground: Rgb
    mark: Rgb
    second: Rgb
    throat: Rgb


def rgb(code: str) -> Rgb:
    """Return the colour of six hexadecimal digits."""
    red, green, blue = (int(code[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


TABLE: dict[str, tuple[str, ...]] = {
    # base, mark, second pigment, throat
    "turret": (
        "ecdcc0 8a5a34 c79a66 e9d3b8",
        "d9b98c 7a4526 a8703f e3c6a0",
        "efe6d6 b06a3c d3a77a f0dcc8",
        "cfae86 5b3823 94653f d7b995",
        "e7cfae a3432a c9824f edc9ac",
    ),
    "cone": (
        "f3e9d8 6d3416 b9783f f1e4d6",
        "f2dfc2 a4481f d89a5b f4e2d0",
        "ede3d3 2f2320 7d5a44 ece0d8",
        "f6ecdf c2702c e5b074 f7e9dd",
        "e9cfa6 7b3b1d b8814d efdcc4",
        "f1e2d8 8c3a4a c98a86 f0d5d0",
    ),
    "cowrie": (
        "e3c9a2 6e3d1f f6ecdc f4ece0",
        "d8a566 74401f efd9b4 f5ede2",
        "efe2cf 4a2c1e d9b78d f3e9df",
        "c9a184 5b2f26 ecd6c2 f1e3da",
        "b98a52 3f2416 e6c998 efe4d6",
    ),
    "scallop": (
        "f0c9a6 b5432b e07a4c f3ddc9",
        "f2dcb4 d98a2b eab865 f6ead0",
        "e9c3c4 8f2f4f c76480 f0d8d8",
        "d9b3c9 6b3a78 a673aa ead5e2",
        "f3e6d6 a85a48 d9a08a f6ece2",
        "f4d6a0 c4561f e8944a f6e4c4",
    ),
    "nautilus": (
        "f5ecdf a5522a c98253 f2ebe2",
        "f4e8d6 8c3f1f bd7144 f3ece0",
        "f7f0e6 b9622f d99a66 f6f0ea",
    ),
    "whelk": (
        "dcc3a0 7d5330 b38a5c e8b48a",
        "cdb59a 5f4632 9c7d5c e6c9a8",
        "e8d7bb 96602f c79a63 ee9f6c",
        "d6bfa6 6d3f2b a8795a e7a592",
        "bfa88c 4e4136 867056 dcc4aa",
    ),
    "moon": (
        "d9bd97 6a4327 a97f55 e9d5c0",
        "efe3cf a2622f d2a272 f2e4d4",
        "c4a58c 5a3c30 8f6b57 d9bfae",
        "e9d3b0 8a3f22 c98d5a efdcc6",
        "d2c3b4 5f5a58 8e8580 e6dad0",
    ),
    "top": (
        "e9d9c6 93384a c07a80 f0e8e0",
        "d9d2b4 5d6b3f 93986a ece8dc",
        "ead3b5 8a3b24 bf7a52 f0e6da",
        "e6dcd0 5c4a48 9a8680 eee8e4",
        "efd2bd b0472f d98a68 f3e8e0",
    ),
    "murex": (
        "e6d3b8 7a4a2b ab7d55 efc9b8",
        "efe4d4 4a352b 8a6a54 f0d0c4",
        "d9b48f 6b3322 a2623f e99d86",
        "e9cdb9 9a4f44 c48674 f0a9a0",
    ),
    "sundial": (
        "e4cfa8 6b4326 a97c4d ecdcc0",
        "efe2cc 8a4a2a c18f62 f0e6d6",
        "d6bd9c 4f382a 8f6c4c e4d2b8",
        "ead2b8 7d3c30 b97a62 efdfd0",
    ),
}


def shift_hsl(value: Rgb, hue: float, saturation: float, lightness: float) -> Rgb:
    """Shift a colour's hue (in turns), and scale its saturation and lightness."""
    h, light, s = colorsys.rgb_to_hls(*value)
    return colorsys.hls_to_rgb(
        (h + hue) % 1.0, min(1.0, light * lightness), min(1.0, s * saturation)
    )


def palette(family: str, species: np.random.Generator, specimen: np.random.Generator) -> Palette:
    """Return the palette of one specimen: that of its species, slightly shifted."""
    table = TABLE[family]
    colours = [rgb(code) for code in table[int(species.integers(len(table)))].split()]
    hue = float(species.normal(0, 0.012)) + float(specimen.normal(0, 0.004))
    saturation = float(species.uniform(0.88, 1.15)) * float(specimen.uniform(0.95, 1.05))
    lightness = float(species.uniform(0.96, 1.03)) * float(specimen.uniform(0.975, 1.02))
    return Palette(*(shift_hsl(value, hue, saturation, lightness) for value in colours))

"""The coiled families: each function builds one specimen from its two random streams.

``species`` yields the same numbers for every specimen of a species, ``specimen`` makes each
a little different; ``key`` names the species' pigment patterns.
"""

from __future__ import annotations

import numpy as np

from pipeline.demo.light import Surface
from pipeline.demo.palettes import palette
from pipeline.demo.randomness import jitter
from pipeline.demo.raster import Floats
from pipeline.demo.snails import Pattern, coiled, spired_curve
from pipeline.demo.spiral import TURN, Coil, closed_curve

Rng = np.random.Generator


def bump(values: Floats, centre: float, width: float) -> Floats:
    """Return a Gaussian hump of height 1."""
    hump: Floats = np.exp(-(((values - centre) / width) ** 2))
    return hump


def sharp(values: Floats, power: float) -> Floats:
    """Return a periodic ridge in [0, 1] from a phase in radians; larger power is narrower."""
    ridge: Floats = (0.5 + 0.5 * np.cos(values)) ** power
    return ridge


def pick(rng: Rng, *choices: str) -> str:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def pattern(
    species: Rng, specimen: Rng, key: int, recipe: str, lines: float, strength: float = 1.0
) -> Pattern:
    """Return a pattern whose threshold is the species' and whose place is the specimen's."""
    low = float(species.uniform(0.12, 0.35))
    offset = float(specimen.uniform(0, 400))
    spacing = lines * float(species.uniform(0.85, 1.2))
    return Pattern(recipe, key, spacing, low, low + 0.3, strength, offset)


def turret(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Turritella-like: a tall slender spire with spiral cords."""
    colours = palette("turret", species, specimen)
    angle = jitter(specimen, species.uniform(9.5, 18.0), 0.06)
    growth = jitter(specimen, species.uniform(1.19, 1.3), 0.01)
    swell = species.uniform(0.12, 0.26)
    high = species.uniform(0.3, 0.65)
    side = [(0.0, 0.0), (0.2, swell * 0.7), (high, swell), (0.92, swell * 0.45)]
    base = [(0.97, 0.12), (0.82, 0.36), (0.52, 0.52), (0.26, 0.5)]
    inside = [(0.12, 0.34), (0.06, 0.05), (0.1, -0.5), (0.5, -0.9)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 17.0, 0.016, flare=0.012, rows_per_turn=90)
    cords = int(species.integers(3, 9))
    depth = species.uniform(0.004, 0.012) * (6 / (cords + 3))
    ribs, axial = int(species.integers(14, 26)), species.choice([0.0, 0.0, 0.012])

    def relief(phi: Floats, across: Floats) -> Floats:
        waves = depth * np.cos(across * TURN * cords * 1.6)
        lifted: Floats = waves + axial * sharp(phi * ribs, 1.5) * bump(across, 0.3, 0.2)
        return lifted

    recipe = pick(species, "zigzags", "waves", "ripples", "bands", "drops")
    marks = pattern(species, specimen, key, recipe, 190.0, 0.85)
    bands = pattern(species, specimen, key + 1, "bands", 100.0, 0.6)
    return coiled(
        coil, relief, colours, marks, bands, 0.45, (8, 0, specimen.uniform(-8, 8)), specimen
    )


def cone(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Conus-like: a low spire over an inverted cone with a slit of an aperture."""
    colours = palette("cone", species, specimen)
    angle = jitter(specimen, species.uniform(54.0, 70.0), 0.015)
    growth = jitter(specimen, species.uniform(1.11, 1.16), 0.003)
    long = jitter(specimen, species.uniform(1.75, 2.25), 0.03)
    round_ = species.uniform(0.08, 0.28)
    belly = species.uniform(0.0, 0.06)
    side = [(0.0, 0.0), (0.4, 0.02), (0.9, 0.02 + round_ * 0.3)]
    base = [
        (1.0 + round_ * 0.06, 0.04 + round_ * 0.5),
        (0.9 + belly, 0.32 * long * 0.5 + round_ * 0.2),
        (0.56 + belly, 0.58 * long),
        (0.24, 0.95 * long),
        (0.15, long),
    ]
    inside = [(0.09, 0.95 * long), (0.38, 0.58 * long), (0.68, 0.2 * long), (0.78, 0.02)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 13.0, 0.05, rows_per_turn=100)
    knobs, height = int(species.integers(10, 16)), species.choice([0.0, 0.0, 0.05])

    def relief(phi: Floats, across: Floats) -> Floats:
        lifted: Floats = height * sharp(phi * knobs, 2) * bump(across, 0.1, 0.03)
        return lifted + 0.004 * np.cos(across * 120) * bump(across, 0.95, 0.15)

    recipe = pick(species, "tents", "tents", "spots", "zigzags", "waves", "drops")
    marks = pattern(species, specimen, key, recipe, 420.0)
    second = pattern(species, specimen, key + 1, pick(species, "bands", "ripples"), 200.0, 0.5)
    return coiled(coil, relief, colours, marks, second, 0.8, (18, 0, 0), specimen)


def whelk(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Buccinum- and Fusus-like: shouldered whorls with ribs and a siphonal canal."""
    colours = palette("whelk", species, specimen)
    angle = jitter(specimen, species.uniform(20.0, 34.0), 0.04)
    growth = jitter(specimen, species.uniform(1.34, 1.56), 0.012)
    shoulder = species.uniform(0.22, 0.42)
    canal = jitter(specimen, species.uniform(1.2, 1.95), 0.05)
    side = [(0.0, 0.0), (0.22, shoulder * 0.6), (0.55, shoulder), (1.0, shoulder * 0.8)]
    base = [(0.97, 0.38), (0.6, 0.86), (0.27, 0.74 * canal), (0.17, canal), (0.11, canal + 0.03)]
    inside = [(0.05, canal * 0.95), (0.09, 1.0), (0.07, 0.3), (0.1, -0.3), (0.5, -0.55)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 10.0, 0.045, flare=0.07)
    ribs = int(species.integers(8, 15))
    height = species.uniform(0.015, 0.055)
    cords, fine = int(species.integers(9, 22)), species.uniform(0.004, 0.011)

    def relief(phi: Floats, across: Floats) -> Floats:
        axial = height * (sharp(phi * ribs, 1.3) - 0.4) * bump(across, 0.27, 0.2)
        lifted: Floats = axial + fine * np.cos(across * TURN * cords)
        return lifted

    recipe = pick(species, "ripples", "waves", "bands", "zigzags")
    marks = pattern(species, specimen, key, recipe, 230.0, species.uniform(0.45, 0.95))
    second = pattern(species, specimen, key + 1, "bands", 100.0, 0.55)
    return coiled(
        coil, relief, colours, marks, second, 0.3, (10, 0, specimen.uniform(-8, 8)), specimen
    )


def moon(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Natica-like: globose and glossy, with a wide aperture and a small spire."""
    colours = palette("moon", species, specimen)
    angle = jitter(specimen, species.uniform(42.0, 50.0), 0.02)
    growth = jitter(specimen, species.uniform(1.68, 1.9), 0.01)
    swell = species.uniform(0.3, 0.4)
    side = [(0.0, 0.0), (0.18, swell * 0.55), (0.5, swell * 0.95), (0.9, swell)]
    base = [(1.04, 0.42), (0.82, 0.82), (0.52, 1.02), (0.3, 0.98)]
    inside = [(0.17, 0.8), (0.15, 0.3), (0.1, -0.1), (0.34, -0.42)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 8.0, 0.035)

    def relief(phi: Floats, across: Floats) -> Floats:
        return 0.003 * np.cos(phi * 90) * np.ones_like(across)

    recipe = pick(species, "spots", "spots", "zigzags", "ripples", "drops", "tents")
    marks = pattern(species, specimen, key, recipe, 400.0)
    second = pattern(species, specimen, key + 1, "bands", 100.0, 0.6)
    return coiled(coil, relief, colours, marks, second, 0.85, (14, 0, 0), specimen)


def top(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Trochus-like: a straight-sided cone with a flat base and beaded spirals."""
    colours = palette("top", species, specimen)
    angle = jitter(specimen, species.uniform(27.0, 43.0), 0.04)
    growth = jitter(specimen, species.uniform(1.24, 1.36), 0.006)
    swell = species.uniform(0.03, 0.16)
    side = [(0.0, 0.0), (0.3, swell), (0.7, swell), (0.96, 0.06)]
    base = [(1.01, 0.05), (0.9, 0.18), (0.6, 0.26), (0.26, 0.25)]
    inside = [(0.1, 0.12), (0.1, -0.2), (0.5, -0.42)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 14.0, 0.03, rows_per_turn=150)
    beads = int(species.integers(18, 34))
    height, cords = species.uniform(0.006, 0.02), int(species.integers(3, 7))

    def relief(phi: Floats, across: Floats) -> Floats:
        spirals = 0.5 + 0.5 * np.cos(across * TURN * cords * 2.2)
        granular = height * spirals * (0.5 + 0.5 * np.cos(phi * beads))
        knobs = 1.2 * height * sharp(phi * beads / 2, 2) * bump(across, 0.4, 0.05)
        lifted: Floats = granular + knobs
        return lifted

    recipe = pick(species, "ripples", "waves", "ripples", "drops")
    marks = pattern(species, specimen, key, recipe, 330.0)
    second = pattern(species, specimen, key + 1, "bands", 100.0, 0.4)
    return coiled(coil, relief, colours, marks, second, 0.4, (8, 0, 0), specimen)


def murex(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Murex-like: spiny varices every third or fourth of a whorl, and a long canal."""
    colours = palette("murex", species, specimen)
    angle = jitter(specimen, species.uniform(24.0, 36.0), 0.04)
    growth = jitter(specimen, species.uniform(1.42, 1.58), 0.008)
    canal = jitter(specimen, species.uniform(1.6, 2.6), 0.05)
    swell = species.uniform(0.3, 0.42)
    side = [(0.0, 0.0), (0.2, swell * 0.6), (0.55, swell), (0.95, swell * 0.8)]
    base = [(0.94, 0.4), (0.55, 0.85), (0.24, 1.15), (0.16, 0.8 * canal), (0.12, canal)]
    inside = [(0.05, 0.95 * canal), (0.06, 1.2), (0.08, 0.4), (0.1, -0.3), (0.5, -0.55)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 9.0, 0.045, rows_per_turn=190)
    varices = float(species.integers(3, 6))
    spines, tall = int(species.integers(5, 8)), jitter(specimen, species.uniform(0.12, 0.34), 0.1)
    cords = int(species.integers(10, 18))

    def relief(phi: Floats, across: Floats) -> Floats:
        varix = sharp(phi * varices, 40.0)
        row_of_spines = sharp(across * TURN * spines * 1.25 + 0.6, 5.0) * (1.15 - 0.6 * across)
        lifted = varix * (0.05 + tall * row_of_spines)
        between = 0.03 * sharp(phi * varices * 3, 2.0) * bump(across, 0.25, 0.15)
        spined: Floats = lifted + between + 0.007 * np.cos(across * TURN * cords)
        return spined

    marks = pattern(species, specimen, key, pick(species, "bands", "ripples"), 200.0, 0.7)
    second = pattern(species, specimen, key + 1, "bands", 100.0, 0.5)
    return coiled(coil, relief, colours, marks, second, 0.3, (6, 0, 0), specimen)


def sundial(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Architectonica-like: a flat spire seen from above, with beaded spiral bands."""
    colours = palette("sundial", species, specimen)
    angle = jitter(specimen, species.uniform(60.0, 66.0), 0.01)
    growth = jitter(specimen, species.uniform(1.32, 1.46), 0.006)
    side = [(0.0, 0.0), (0.3, 0.09), (0.7, 0.09), (0.96, 0.03)]
    base = [(1.01, 0.05), (0.93, 0.15), (0.7, 0.2), (0.5, 0.16)]
    inside = [(0.42, 0.05), (0.5, -0.1), (0.62, -0.2)]
    curve, foot = spired_curve(angle, growth, side, base, inside)
    coil = Coil(curve, foot, growth, 14.0, 0.03, rows_per_turn=170)
    bands, beads = int(species.integers(4, 7)), int(species.integers(34, 52))
    height = species.uniform(0.02, 0.035)

    def relief(phi: Floats, across: Floats) -> Floats:
        spirals = sharp(across * TURN * bands * 1.7, 0.6)
        lifted: Floats = height * spirals * (0.6 + 0.4 * np.cos(phi * beads))
        return lifted

    marks = pattern(species, specimen, key, pick(species, "drops", "ripples"), 500.0, 0.9)
    second = pattern(species, specimen, key + 1, "bands", 100.0, 0.8)
    return coiled(
        coil, relief, colours, marks, second, 0.45, (0, 78, specimen.uniform(-10, 10)), specimen
    )


def nautilus(species: Rng, specimen: Rng, key: int) -> list[Surface]:
    """Nautilus: coiled in a plane, W near 3, with flames on the older shell."""
    colours = palette("nautilus", species, specimen)
    growth = jitter(specimen, species.uniform(2.6, 3.6), 0.03)
    half = jitter(specimen, species.uniform(0.33, 0.4), 0.02)
    upper = [(0.05, 0.1 * half), (0.16, 0.55 * half), (0.45, 0.98 * half), (0.78, 0.76 * half)]
    lower = [(r, -y) for r, y in reversed(upper)]
    knots = np.array([*upper, (1.0, 0.0), *lower, (0.03, 0.0)])
    curve, at = closed_curve(knots, 168)
    lean = 0.10 * np.cos(np.linspace(0, 2 * TURN, len(curve)) * float(at[8])).astype(np.float32)
    coil = Coil(curve, float(at[8]), growth, 3.2, 0.016, rows_per_turn=200, lean=lean)

    def relief(phi: Floats, across: Floats) -> Floats:
        return 0.0012 * np.cos(phi * 120) * np.ones_like(across)

    flames = Pattern(
        "ripples",
        key,
        lines_per_whorl=240.0 * species.uniform(0.85, 1.2),
        low=0.06,
        high=species.uniform(0.22, 0.4),
        offset=specimen.uniform(0, 400),
        starts=species.uniform(0.7, 1.8),
        mirrored=True,
    )
    return coiled(
        coil, relief, colours, flames, None, 0.7, (0, 74, 150 + specimen.uniform(-6, 6)), specimen
    )

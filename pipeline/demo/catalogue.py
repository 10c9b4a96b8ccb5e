"""The collection: the family, species and licence of every numbered specimen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.demo.randomness import derived_key, generator

SPECIMENS_PER_SPECIES = 8


@dataclass(frozen=True)
class Family:
    """A family of shells: its short name, its label on the site, its genera and its habit."""

    name: str
    label: str
    genera: tuple[str, ...]
    habit: str


FAMILIES = (
    Family("turret", "turret", ("Turriscala", "Acusella", "Spiramella"),
           "A tall, slender spire of many whorls, turned by spiral cords"),
    Family("cone", "cone", ("Conarius", "Textilina", "Coniscus"),
           "A low spire over an inverted cone, with a long narrow aperture"),
    Family("scallop", "scallop", ("Pectiniola", "Flabellaria", "Radulopecten"),
           "A symmetrical fan of radial ribs with an ear on either side of the hinge"),
    Family("whelk", "whelk", ("Buccinaria", "Fusolaria", "Neptunella"),
           "Shouldered whorls with axial folds and an open siphonal canal"),
    Family("cowrie", "cowrie", ("Cypraeola", "Lucidaria", "Ovicypra"),
           "A glossy egg whose last whorl hides all the others"),
    Family("nautilus", "nautilus", ("Nautilina", "Velanautes", "Argonella"),
           "Coiled in a single plane, each whorl about three times the size of the last"),
    Family("top", "top shell", ("Trochella", "Conulina", "Calliscala"),
           "A straight-sided cone on a flat base, beaded along the spirals"),
    Family("moon", "moon snail", ("Naticella", "Lunarina", "Polinaria"),
           "Globose and polished, with a small spire and a half-moon aperture"),
    Family("murex", "murex", ("Muricopsella", "Spinarex", "Hexaplora"),
           "Spiny varices at regular rests in growth, and a long siphonal canal"),
    Family("sundial", "sundial", ("Architella", "Heliacina", "Solariella"),
           "A low spiral stair, seen from above, with beaded bands"),
)  # fmt: skip

EPITHETS = (
    "aurantia", "bicincta", "candida", "decora", "elegans", "fasciata", "gemmata", "hyalina",
    "imbricata", "jucunda", "lineolata", "maculosa", "nebulosa", "ornata", "picta", "radiata",
    "serena", "tessellata", "undulata", "venusta", "zonata", "arenaria", "borealis", "coralina",
    "dubia", "exigua", "flammea", "granulata", "hirundo", "insularis", "litoralis", "marmorata",
    "nitida", "obscura", "pallida", "rosacea", "signata", "tenuis", "umbrata", "variegata",
)  # fmt: skip

SHORES = (
    "Halcyon Bay", "the Amber Strand", "Port Sorrel", "the Lantern Reefs", "Cape Merrow",
    "the Sandling Shoals", "Vesper Island", "the Gulf of Ilmen", "Tern Point", "Greywater Sound",
)  # fmt: skip

COLLECTORS = (
    "A. Lindqvist", "M. Okonjo", "The Harbour Museum", "R. Castellan", "J. Whitlow",
    "The Tidewater Trust", "S. Amano", "E. de la Mar",
)  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """A licence: its short name, its page (empty if there is none) and whether reuse is free."""

    name: str
    url: str
    free: bool


CC0 = Licence("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", True)
CC_BY = Licence("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/", True)
RESERVED = Licence("All rights reserved", "", False)


@dataclass(frozen=True)
class Species:
    """An invented species and the text of its page."""

    family: Family
    number: int
    name: str
    licence: Licence
    credit: str
    description: str

    @property
    def slug(self) -> str:
        """The name in lower case with hyphens, as used in URLs."""
        return self.name.lower().replace(" ", "-")


def place(index: int) -> tuple[int, int]:
    """Return (family number, species number within the family) of a specimen index >= 0.

    Families alternate, so that ten consecutive specimens show all of them.
    """
    return index % len(FAMILIES), index // len(FAMILIES) // SPECIMENS_PER_SPECIES


@lru_cache(maxsize=4096)
def species_of(seed: int, family_number: int, number: int) -> Species:
    """Return a species of a collection; its text and licence depend on nothing else."""
    family = FAMILIES[family_number]
    order = generator("names", seed, family.name).permutation(len(family.genera) * len(EPITHETS))
    pair = int(order[number % len(order)])
    name = f"{family.genera[pair % len(family.genera)]} {EPITHETS[pair // len(family.genera)]}"
    again = number // len(order)
    while again:
        name += f" {EPITHETS[(pair + again) % len(EPITHETS)]}"
        again //= len(EPITHETS)
    rng = generator("species text", seed, family.name, number)
    licence = (CC0, CC_BY, RESERVED)[int(np.searchsorted([0.45, 0.9], rng.random()))]
    shore, credit = SHORES[int(rng.integers(len(SHORES)))], COLLECTORS[int(rng.integers(8))]
    length, depth = int(rng.integers(18, 140)), int(rng.integers(1, 60))
    description = (
        f"{family.habit}. Adults reach {length} mm and live in {depth} to "
        f"{depth + int(rng.integers(5, 40))} m of water off {shore}."
    )
    return Species(family, number, name, licence, credit, description)


def species_key(seed: int, family: Family, number: int) -> int:
    """Return the key, below 2**63, from which the shape and pattern of a species are drawn."""
    return derived_key("species form", seed, family.name, number) >> 1

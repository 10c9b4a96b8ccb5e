"""Generators and discriminators by the names that a configuration uses.

To add one: a file here with its builders, its typed table in `training.config`, a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.networks.base import Discriminator, Generator, ImageShape, Verdict
from training.networks.dcgan import dcgan_discriminator, dcgan_generator

__all__ = [
    "DISCRIMINATORS", "GENERATORS", "Discriminator", "Generator", "ImageShape", "Verdict",
    "build_discriminator", "build_generator",
]  # fmt: skip

GENERATORS: dict[str, Callable[[Any, ImageShape], Generator]] = {"dcgan": dcgan_generator}
DISCRIMINATORS: dict[str, Callable[[Any, ImageShape], Discriminator]] = {
    "dcgan": dcgan_discriminator
}


def build_generator(table: Any, shape: ImageShape) -> Generator:
    """The generator that the configuration's table describes, with fresh weights."""
    return GENERATORS[table.name](table, shape)


def build_discriminator(table: Any, shape: ImageShape) -> Discriminator:
    """The discriminator that the configuration's table describes, with fresh weights."""
    return DISCRIMINATORS[table.name](table, shape)

"""The site recipe, `pipeline/sites/NAME.toml`: what to take from a site, and how.

Typed, unknown keys refused; a mistake is one line with the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.http import Politeness
from pipeline.names import SITES, recipe_names
from pipeline.sources import Source
from pipeline.typed import STRICT, build, read_toml


@dataclass(frozen=True, config=STRICT)
class Select:
    """What to keep, by recorded facts. A limit left out does not apply.

    `min_side` and `max_aspect` are in pixels and long side over short side; `licenses` are
    substrings, one of which the licence must hold (no case); `labels` likewise.
    """

    min_side: int = Field(default=64, ge=1)
    max_aspect: float = Field(default=3.0, ge=1)
    min_blur: float = Field(default=0.0, ge=0)
    min_spread: float = Field(default=4.0, ge=0)
    near_duplicate_bits: int | None = Field(default=3, ge=0, le=16)
    licenses: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Shards:
    """How the training samples are made. `class_label` is which of an image's labels is its class,
    by position; None makes an unlabelled set."""

    resolution: int = Field(default=64, ge=8, le=1024)
    channels: Literal[1, 3] = 3
    crop: Literal["center", "pad"] = "center"
    format: Literal["png", "webp", "jpg"] = "webp"
    quality: int | None = Field(default=None, ge=1, le=100)
    samples_per_shard: int = Field(default=1000, ge=1)
    seed: int = 0
    class_label: int | None = Field(default=None, ge=0)
    keep_originals: bool = True


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """One site: where its images are (`source`), how polite to be, what to keep, what to make."""

    source: Source
    title: str = ""
    politeness: Politeness = field(default_factory=Politeness)
    select: Select = field(default_factory=Select)
    shards: Shards = field(default_factory=Shards)


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe; `overrides` are values by dotted key, such as `shards.resolution`.

    Raises:
        UserError: no such file, not TOML, or a key that is unknown or does not fit.
    """
    values = read_toml(path)
    for key, value in (overrides or {}).items():
        *tables, last = key.split(".")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"{path}: {key}: {name} is not a table")
        table[last] = value
    return build(Recipe, values, str(path))


def recipe_path(name: str) -> Path:
    """The file of recipe `name`: a shipped one's name, or a path to a TOML file.

    Raises:
        UserError: there is none; the message lists those that are shipped.
    """
    path = Path(name) if name.endswith(".toml") else SITES / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"{path}: no such recipe; there are: {', '.join(recipe_names())}")
    return path

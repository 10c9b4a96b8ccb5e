"""The recipe of a site, `pipeline/sites/NAME.toml`.

Unknown keys are errors. A user error is one line with the file and the key.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT, parse_config, read_toml
from pipeline.errors import UserError
from pipeline.fetcher import Politeness
from pipeline.names import RECIPES_DIR, recipe_names
from pipeline.options import OriginalsOptions, SelectOptions, ShardOptions, StorageOptions
from pipeline.outside_text import without_passwords
from pipeline.reading import is_url, split_url
from pipeline.sources import Source
from pipeline.sources.folder import FolderSource
from pipeline.suggestions import suggestion
from pipeline.web.host_headers import HostHeaders, take_credentials, with_host_headers


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Describes a site: where its images are (`source`), politeness, limits, and the shards to
    build. `title` is the name of the dataset in its card.

    A recipe whose images are imported needs no source.
    """

    source: Source = field(default_factory=FolderSource)
    title: str = ""
    politeness: Politeness = field(default_factory=Politeness)
    storage: StorageOptions = field(default_factory=StorageOptions)
    originals: OriginalsOptions = field(default_factory=OriginalsOptions)
    select: SelectOptions = field(default_factory=SelectOptions)
    shards: ShardOptions = field(default_factory=ShardOptions)

    def __post_init__(self) -> None:
        """Move users and passwords from URLs into the headers of their hosts.

        Raises:
            ValueError: options of two sections exclude each other.
        """
        if self.originals.side and self.shards.crop == "box":
            raise ValueError(
                'shards.crop: "box" needs the whole images that the boxes are of; remove '
                "originals.side, and download again"
            )
        found: HostHeaders = {}
        source = take_credentials(self.source, found)
        politeness = with_host_headers(self.politeness, found, map(str, source.start))
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "politeness", politeness)


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a path or URL; `overrides` replace values by dotted keys
    (`shards.resolution`).

    Raises:
        UserError: the file does not exist or is not TOML, or a key is unknown or invalid.
    """
    return parse_recipe(read_toml(path), str(path), overrides)


def parse_recipe(
    values: dict[str, Any], where: str, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Return the recipe of the sections `values`; changes them.

    Raises:
        UserError: a key is unknown or invalid; the message names `where`.
    """
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    return parse_config(Recipe, values, where)


def locate_recipe(name: str) -> Path | str:
    """Return where a recipe is: a URL itself, or as `recipe_path`.

    Raises:
        UserError: as `recipe_path`.
    """
    if not is_url(name):
        return recipe_path(name)
    if _names_shards(name):
        raise _not_a_recipe(name)
    return name


def _names_shards(name: str) -> bool:
    path = split_url(name).path.lower()
    return path.endswith((".tar", ".tar.gz", ".zip")) or "*" in name or "{" in name


def _not_a_recipe(name: str) -> UserError:
    shown = without_passwords(name)
    fetched = "download it, then " if is_url(name) else ""
    path = shlex.quote(PurePosixPath(urlsplit(shown).path).name if fetched else shown)
    return UserError(
        f"{shown}: not a recipe; name the recipe of the dataset. Images and shards of other tools: "
        f"{fetched}run python -m pipeline import NAME.toml {path}, or train on the shards with "
        "--shards"
    )


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for name in tables:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UserError(f"{key}: {name} is not a table")
    values[last] = value


def recipe_path(name: str) -> Path:
    """Return the path of a recipe; `name` is that of an included recipe, or a path to a TOML file.

    Raises:
        UserError: it does not exist; the message lists the included recipes, or says what to do
            with images or shards.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES_DIR / f"{name}.toml"
    if not path.is_file():
        if not name.endswith(".toml") and (Path(name).exists() or _names_shards(name)):
            raise _not_a_recipe(name)
        here = f"{name.removesuffix('.toml')}.toml"
        other = f"use {here}, " if path.name == here and Path(here).is_file() else ""
        raise UserError(
            f"{path}: recipe not found; {other}choose a file or one of "
            f"{', '.join(recipe_names())}; to import images, create {here} (it may be empty)"
            f"{suggestion(path.stem, recipe_names())}"
        )
    return path

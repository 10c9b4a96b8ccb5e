"""What the command is pointed at: a gallery, files to import, a recipe, shards or a run."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pipeline.contract import (
    UserError,
    is_url,
    printable,
    split_url,
    split_user,
    suggestion,
)
from pipeline.contract.paths import NAME
from pipeline.names import recipe_names

Kind = Literal["gallery", "files", "recipe", "shards", "run"]
NO_SIZE = "resolution = 64  # not chosen yet"
"""The line of a proposed recipe until the images were measured."""
_CLASS = "# class_label = 0  # the first label of an image becomes its class"
_SECTIONS = f"""
[select]
min_side = 64

[shards]
{NO_SIZE}
{_CLASS}
"""


@dataclass(frozen=True)
class Where:
    """What was found at `location`, and the `name` of its dataset or run."""

    kind: Kind
    location: str
    name: str


def find(text: str, root: Path, words: tuple[str, ...]) -> Where:
    """Return what `text` is: an address, a path, or the name of a recipe or run.

    Raises:
        UserError: it is none of these; the message suggests the nearest of them and of `words`. Or
            a recipe cannot contain it.
    """
    _check_characters(text if is_url(text) else str(full_path(Path(text))))
    if is_url(text):
        parts = split_url(text)
        end = Path(parts.path).suffix
        if end == ".toml":
            return Where("recipe", text, _slug(Path(parts.path).stem))
        if end in (".tar", ".json") or parts.scheme not in ("http", "https"):
            return Where("shards", _absolute(text), _slug(Path(parts.path).stem))
        return Where("gallery", text, _slug(f"{parts.hostname}-{parts.path.strip('/')}"))
    path = full_path(Path(text))
    if path.exists():
        return _local(path)
    if _is_pattern(text):
        return Where("shards", _absolute(text), _slug(path.parent.name))
    run = root / "runs" / text.partition("@")[0]
    if (run / "config.json").exists():
        return Where("run", str(root / "runs" / text), text)
    if text in recipe_names():
        return Where("recipe", text, text)
    known = [*words, *recipe_names(), *(one.name for one in (root / "runs").glob("*"))]
    hint = suggestion(text, known) or "; give an address (https://…), a path, a recipe or a run"
    raise UserError(f"{text}: not found{hint}")


def _is_pattern(text: str) -> bool:
    """Return True if `text` stands for shards: wildcards, braces, or a list of tars or of paths."""
    if any(letter in text for letter in "*{["):
        return True
    if not any(letter in text for letter in "?,"):
        return False
    parts = [Path(one.strip()) for one in text.split(",") if one.strip()]
    return any(one.suffix in (".tar", ".json") or full_path(one).exists() for one in parts)


def _check_characters(location: str) -> None:
    """Check that a recipe can contain a location.

    Raises:
        UserError: it has control characters, or bytes that are not UTF-8.
    """
    if any(unicodedata.category(one) in ("Cc", "Cs") for one in location):
        raise UserError(
            f"{printable(location)}: has control characters, or bytes that are not UTF-8, in its "
            "name; rename it"
        )


def _absolute(text: str) -> str:
    """Return the locations of shards in a text with absolute paths."""
    from training.streaming.locations import join_locations, split_locations

    found = split_locations(text)
    return join_locations([one if is_url(one) else str(full_path(Path(one))) for one in found])


def full_path(path: Path) -> Path:
    """Return an absolute path without `..`."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _local(path: Path) -> Where:
    if path.suffix == ".toml":
        return Where("recipe", str(path), path.stem)
    if (path / "config.json").exists():
        return Where("run", str(path), path.name)
    if path.suffix == ".json" or (path / "shards.json").exists():
        return Where("shards", str(path), _slug(path.stem))
    return Where("files", str(path), _slug(path.name.partition(".")[0]))


def _slug(text: str) -> str:
    """Return a name for a dataset."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:60].rstrip("-._") or "images"
    assert NAME.fullmatch(slug)
    return slug


def propose(where: Where, path: Path, say: Callable[[str], None]) -> None:
    """Write a proposed recipe for a gallery or for files to `path`.

    Raises:
        UserError: the pages cannot be fetched, forbid it, or have no images, for example because
            scripts draw them.
    """
    from pipeline.atomic_io import write_atomic

    if where.kind == "files":
        from pipeline.config_io import format_toml

        # import replaces the crawl; the source only says where the images come from
        folder = {"kind": "folder", "start": [where.location]}
        text = format_toml({"title": where.name, "source": folder})
        text += f"\n[shards]\n{NO_SIZE}\n{_CLASS}\n"
    else:
        text = propose_gallery(where.location, say)
    write_atomic(path, f"{_first_line(where)}\n{text}")


def _first_line(where: Where) -> str:
    return f"# shellgan {split_user(where.location)[0]}"


def propose_gallery(url: str, say: Callable[[str], None] = lambda _: None) -> str:
    """Return the text of a proposed recipe for the gallery at a web address.

    Args:
        say: called with a line for each page that is looked at.

    Raises:
        UserError: as `propose`.
    """
    from pipeline.crawl.check_recipe import propose_recipe
    from pipeline.sources.proposal import PRIVATE_RATE, is_private
    from pipeline.web.politeness import Politeness

    split_url(url)
    private = is_private(url)  # the user named it
    rules = Politeness(allow_private=private, rate=PRIVATE_RATE if private else 2)
    text = propose_recipe(url, rules, on_page=lambda page: say(f"looking at {page}"))
    remarks = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    if any(line.startswith(("no image found", "no image URLs")) for line in remarks):
        raise UserError(
            f"{'; '.join(remarks)}; if you know where the images are, write a recipe "
            "(docs/recipes.md) and run shellgan FILE.toml"
        )
    if split_user(url)[1]:
        host = json.dumps(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}")
        text += f"\n[politeness.host_headers]\n{host} = {{}}  # user and password\n"
    return text + _SECTIONS


def check_owner(path: Path, where: Where) -> Where:
    """Check that a recipe written by `propose` is for the same place, and return that place as it
    spells it: the keys of imported images depend on their paths, and earlier ones can have `..`.

    Raises:
        UserError: it is for another one.
    """
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    if not first.startswith("# shellgan ") or first == _first_line(where):
        return where
    location = first.removeprefix("# shellgan ")
    if where.kind == "files" and str(full_path(Path(location))) == where.location:
        return replace(where, location=location)
    raise UserError(f"{path}: is for {location}; use another folder with --out")

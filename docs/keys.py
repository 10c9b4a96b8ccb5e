"""Tables of the keys of recipes and of training, from the fields of their dataclasses.

The meaning of a key is what the docstring of its class says about `key`: the clause with its name
and the sentences after it that name no other key. A class without them leaves the cell empty,
which a test refuses.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic.fields import FieldInfo

from pipeline.recipe import Recipe
from pipeline.sources import SOURCES
from pipeline.sources.html_options import Follow
from pipeline.sources.json_options import Expression, JsonFollow, Paging
from pipeline.sources.text_selectors import (
    Css,
    ImageSelector,
    ImageSelectorOptions,
    Pattern,
    TextSelector,
    TextSelectorOptions,
)
from pipeline.sources.url_rules import Rewrite
from training.config import Config
from training.options.algorithm import AdaName
from training.options.losses import LOSS_PROPERTIES, LossName

RECIPE_HEAD = """# Keys of a recipe

A recipe is a TOML file: `title` at the top, then a table for each section. Only `[source]` with
its `kind` and `start` is required, and not even that if you import the images. [Scrape a
site](recipes.md) explains how to write one. Any key can be set on the command line:
`--set shards.resolution=128`.
"""
TRAINING_HEAD = """# Keys of training

The keys of a preset and of `runs/RUN/config.json`. On the command line, each is an option:
`--loss.r1 1`, `--batch 64`; a list is written `color,translation`. [Training](training.md) explains
how they are combined, [training techniques](tricks.md) when to use which.
"""
NAMES: dict[Any, str] = {
    Css: "CSS selector",
    Pattern: "regular expression",
    Expression: "[JMESPath](https://jmespath.org)",
    TextSelector: "CSS selector, or [table](#textselectoroptions)",
    ImageSelector: "CSS selector, or [table](#imageselectoroptions)",
    **{
        table: f"[table](#{table.__name__.lower()})"
        for table in (Follow, JsonFollow, Paging, Rewrite)
    },
    AdaName: ", ".join(f"`{name}`" for name in typing.get_args(AdaName)),
    LossName: ", ".join(f"`{name}`" for name in LOSS_PROPERTIES),
    Path: "path",
}
"""What to call types with a check of their own."""
NO_LIMIT = 2**53 - 1
"""Bounds from here on only keep numbers representable; they are not shown."""
PLAIN = {bool: "true or false", int: "integer", float: "number", str: "text"}


def key_table(options: type, prefix: str = "") -> str:
    """Return the Markdown table of the keys of a dataclass; keys explained together share a row.
    `prefix` is that of the keys, such as `loss.`."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for key, field in fields_of(options).items():
        hint, meaning = hints_of(options)[key], meaning_of(options, key)
        values = describe_type(hint, list(field.metadata))
        cells = (f"`{prefix}{key}`", values, describe_default(field))
        rows.setdefault(meaning, []).append(cells)
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for meaning, keys in rows.items():
        columns = [*("<br>".join(column) for column in zip(*keys, strict=True)), meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in columns) + " |")
    return "\n".join(lines) + "\n"


def fields_of(options: type) -> dict[str, FieldInfo]:
    """Return the fields of a dataclass without sections, which have tables of their own, and
    without the name of the kind, which is in the heading."""
    every: dict[str, FieldInfo] = vars(options)["__pydantic_fields__"]
    hints = hints_of(options)
    return {
        key: field
        for key, field in every.items()
        if not sections_in(hints[key]) and not is_kind(hints[key])
    }


def is_kind(hint: Any) -> bool:
    """Return True if a type admits one name only."""
    return (
        typing.get_origin(hint) is Literal
        and len(typing.get_args(hint)) == 1
        and (isinstance(typing.get_args(hint)[0], str))
    )


def sections_in(hint: Any) -> list[type]:
    """Return the option classes of a section; empty for a plain key, and for lists of tables."""
    if is_dataclass(hint) and isinstance(hint, type):
        return [hint] if hint not in INLINE else []
    if is_union(hint) or typing.get_origin(hint) is Annotated:
        return [one for part in typing.get_args(hint) for one in sections_in(part)]
    return []


INLINE = (Follow, JsonFollow, Paging, Rewrite, TextSelectorOptions, ImageSelectorOptions)
"""Tables that are values of one key."""


def hints_of(options: type) -> dict[str, Any]:
    """Return the annotations of a dataclass."""
    return typing.get_type_hints(options, include_extras=True)


def is_union(hint: Any) -> bool:
    """Return True if a type is `a | b`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def describe_type(hint: Any, metadata: list[Any]) -> str:
    """Return which values a type admits, in words."""
    for known, name in NAMES.items():
        if hint == known:
            return name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe_type(arguments[0], [*metadata, *hint.__metadata__])
    if origin is Literal:
        return ", ".join(f"`{one}`" if one != "" else "empty" for one in arguments)
    if is_union(hint):
        parts = [one for one in arguments if one is not type(None)]
        return " or ".join(describe_type(one, metadata) for one in parts)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return "[" + ", ".join(describe_type(one, []) for one in arguments) + "]"
    if origin is tuple:
        return f"list of: {describe_type(arguments[0], [])}"
    if origin is dict:
        return "table"
    return PLAIN[hint] + bounds(metadata)


def bounds(metadata: list[Any]) -> str:
    """Return the range of a number."""
    found = {
        name: getattr(one, name)
        for one in flat(metadata)
        for name in ("ge", "gt", "le", "lt")
        if getattr(one, name, None) is not None
    }
    low = f"{found['ge']:,}" if "ge" in found else f"> {found['gt']:,}" if "gt" in found else ""
    most = found.get("le", found.get("lt"))
    if most is None or most >= NO_LIMIT:
        return (f" {low}" if ">" in low else f" ≥ {low}") if low else ""
    high = f"{most:,}" if "le" in found else f"< {most:,}"
    return f", {low} to {high}" if low else f" ≤ {high}"


def flat(metadata: list[Any]) -> Iterator[Any]:
    """Yield the constraints of annotations and of fields in them."""
    for one in metadata:
        yield from one.metadata if isinstance(one, FieldInfo) else [one]


def describe_default(field: FieldInfo) -> str:
    """Return the default as in TOML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    value = getattr(value, "select", value) if is_dataclass(value) else value
    if value is None or value is MISSING:
        return "none"
    if value in ("", (), {}):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{int(value):,}" if value == int(value) else f"{value:g}"
    if isinstance(value, tuple):
        names = ", ".join(f"`{one}`" for one in value[:5])
        return f"{names} and {len(value) - 5} more" if len(value) > 5 else names
    return f"`{value}`"


def meaning_of(options: type, key: str) -> str:
    """Return what the docstrings of a class and of its bases say about a key."""
    for owner in options.__mro__:
        found = [text for name, text in clauses(owner) if key in name]
        if found:
            return " ".join(found)
    return ""


def clauses(owner: type) -> Iterator[tuple[set[str], str]]:
    """Yield the clauses of a class's docstring with the names of fields in them."""
    keys = set(hints_of(owner)) if is_dataclass(owner) else set()
    for paragraph in paragraphs(owner):
        named: set[str] = set()
        text = ""
        parts = re.split(r"((?<=[.)]) (?=[A-Z`\"(])|; (?=`))", paragraph)
        for clause, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
            own = {name for name in re.findall(r"`(\w+)[^`]*`", clause) if name in keys}
            if own and text:
                yield named, text.strip("; ")
                text = ""
            named = own or named
            text += clause + end if named else ""
        if text:
            yield named, text.strip("; ")


def paragraphs(owner: type) -> list[str]:
    """Return the paragraphs of a class's own docstring, each on one line."""
    text = (owner.__dict__.get("__doc__") or "").replace("\n    - ", "<br>• ")
    return [re.sub(r"\s+", " ", one).strip() for one in text.split("\n\n")]


def introduction(options: type) -> str:
    """Return the first sentence of a class's docstring."""
    return re.split(r"(?<=\.)(?<!et al\.) |: ", paragraphs(options)[0])[0].rstrip(".:") + "."


def unexplained(options: type) -> list[str]:
    """Return the keys that no docstring explains."""
    return [key for key in fields_of(options) if not meaning_of(options, key)]


def section(title: str, options: type, level: int = 2, prefix: str = "") -> str:
    """Return the heading, the introduction and the keys of a class."""
    return f"{'#' * level} {title}\n\n{introduction(options)}\n\n{key_table(options, prefix)}"


def recipe_page() -> str:
    """Return the page of the keys of a recipe."""
    parts = [RECIPE_HEAD, key_table(Recipe)]
    parts += [
        section(f'[source] with kind = "{kind}"', one.config) for kind, one in SOURCES.items()
    ]
    parts.append("## Tables in [source]\n")
    parts += [section(options.__name__, options, 3) for options in INLINE]
    for name, hint in hints_of(Recipe).items():
        if name != "source":
            parts += [section(f"[{name}]", options) for options in sections_in(hint)]
    return "\n".join(parts)


def training_page() -> str:
    """Return the page of the keys of training."""
    return "\n".join([TRAINING_HEAD, key_table(Config), *training_sections(Config)])


def training_sections(owner: type, prefix: str = "", of: str = "") -> Iterator[str]:
    """Yield the tables of the sections of a class, then of theirs; `of` is the kind of the
    section around them, for the headings."""
    for name, hint in hints_of(owner).items():
        kinds, path = sections_in(hint), f"{prefix}{name}"
        for options in kinds:
            kind = f"{path}.name = {vars(options)['name']}" if len(kinds) > 1 else ""
            if fields_of(options):
                yield section((kind or path) + of, options, prefix=f"{path}.")
            yield from training_sections(options, f"{path}.", f" of {kind}" if kind else "")

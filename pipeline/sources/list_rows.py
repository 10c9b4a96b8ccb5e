"""Converts the rows of a list to images, by the usual column names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.contract import Box, parse_boxes
from pipeline.outside_text import REPLACEMENT, parse_json, plain_value, safe_text
from pipeline.sources.interface import (
    FoundImage,
    Notes,
)
from pipeline.sources.list_options import ListSource
from pipeline.sources.text_selectors import MAX_LABELS, clean
from pipeline.sources.url_rules import is_allowed
from pipeline.web.urls import canonical_url

COLUMNS = {
    "url": ("url", "image_url", "image url", "originalurl", "identifier", "link"),
    "title": ("title", "caption", "text", "alt", "alt_text"),
    "license": ("license", "rights"),
    "attribution": ("attribution", "rightsholder", "author", "creator"),
    "labels": ("labels", "label", "class"),
    "boxes": ("boxes",),
}
"""The usual columns of each field in lower case, in order: those of this project's manifest,
img2dataset, LAION (URL, TEXT, LICENSE), DataComp (url, text) and Open Images."""


def find_columns(config: ListSource, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the columns of a file for each field. Names in another case count too."""
    present = list(names)
    folded = {name.strip().casefold(): name for name in reversed(present)}
    given = {
        "url": config.url, "title": config.title, "license": config.license_column,
        "attribution": config.attribution_column, "labels": config.labels, "boxes": config.boxes,
    }  # fmt: skip
    chosen = {}
    for member, usual in COLUMNS.items():
        name = given[member]
        wanted = (name,) if isinstance(name, str) else name
        columns = [
            one if one in present else folded.get(one.casefold())
            for one in (usual if wanted is None else wanted)
        ]
        found = [one for one in columns if one is not None]
        chosen[member] = found[:1] if wanted is None else found
    return chosen


def read_rows(
    config: ListSource, records: Iterable[Mapping[str, Any]], notes: Notes
) -> Iterator[FoundImage]:
    columns: dict[str, list[str]] = {}
    names: object = None

    def read(record: Mapping[str, Any]) -> Iterable[FoundImage]:
        nonlocal columns, names
        if record.keys() != names:
            columns, names = find_columns(config, record), record.keys()
        found = _row(config, notes, record, columns)
        return () if found is None else (found,)

    return notes.each(records, read)


def _row(
    config: ListSource, notes: Notes, record: Mapping[str, Any], columns: dict[str, list[str]]
) -> FoundImage | None:
    text = safe_text(_value(record, columns["url"], notes)).strip()
    url = canonical_url(text) if text and REPLACEMENT not in text else None
    if url is None:
        notes.add("not_http" if text else "no_url", text or None)
    elif not is_allowed(url, config.include, config.exclude):
        notes.add("excluded", url)
    else:
        return FoundImage(
            url,
            clean(_value(record, columns["title"], notes)),
            tuple(_labels(record, columns["labels"], notes)),
            clean(_value(record, columns["license"], notes)) or config.license,
            clean(_value(record, columns["attribution"], notes)) or config.attribution,
            boxes=_boxes(record, columns["boxes"], notes),
        )
    return None


def _value(record: Mapping[str, Any], names: Sequence[str], notes: Notes) -> str:
    return _as_text(record.get(names[0]), names[0], notes) if names else ""


def _as_text(value: object, name: str, notes: Notes) -> str:
    text = plain_value(value)
    if text is None:
        notes.add("not_text", f"{name}: {str(value)[:100]}")
    return text or ""


def _labels(record: Mapping[str, Any], names: Sequence[str], notes: Notes) -> Iterator[str]:
    for name in names:
        value = _parsed(record.get(name))
        for one in value[:MAX_LABELS] if isinstance(value, list | tuple) else [value]:
            yield clean(_as_text(one, name, notes))


def _boxes(record: Mapping[str, Any], names: Sequence[str], notes: Notes) -> tuple[Box, ...]:
    """Return the boxes in a column: a list of boxes, or one box."""
    value = _parsed(record.get(names[0])) if names else None
    is_one = isinstance(value, list) and value and not isinstance(value[0], list)
    try:
        return parse_boxes([value] if is_one else value or ())
    except ValueError as error:
        notes.add("bad_boxes", error)
        return ()


def _parsed(value: object) -> object:
    """Return the list in a text that is a JSON array; other values unchanged."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            return parse_json(value)
    return value

"""Converts the rows of a list to images, by the usual column names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.outside_text import REPLACEMENT, plain_value
from pipeline.sources.interface import (
    FoundImage,
    Notes,
)
from pipeline.sources.list_options import ListSource
from pipeline.sources.text_selectors import MAX_LABELS, clean
from pipeline.sources.url_rules import is_allowed
from pipeline.web.urls import canonical_url

COLUMNS = {
    "url": ("url", "URL", "image_url", "Image URL", "OriginalURL", "identifier", "link"),
    "title": ("title", "caption", "TEXT", "text", "TITLE", "alt", "ALT_TEXT"),
    "license": ("license", "LICENSE", "License", "rights"),
    "attribution": ("attribution", "rightsHolder", "author", "Author", "creator"),
    "labels": ("labels", "label", "class"),
}
"""The usual columns of each field, in order: those of this project's manifest, img2dataset, LAION
(URL, TEXT, LICENSE), DataComp (url, text) and Open Images."""


def find_columns(config: ListSource, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the columns of a file for each field."""
    present = list(names)
    given = {
        "url": config.url, "title": config.title, "license": config.license_column,
        "attribution": config.attribution_column,
    }  # fmt: skip
    chosen = {}
    for member, usual in COLUMNS.items():
        name = given.get(member)
        wanted = [name] if name else [one for one in usual if one in present][:1]
        chosen[member] = [one for one in wanted if one in present]
    if config.labels is not None:
        chosen["labels"] = [one for one in config.labels if one in present]
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
    text = _value(record, columns["url"], notes)
    url = canonical_url(text) if text and REPLACEMENT not in text else None
    if url is None:
        notes.add("not_http" if text else "no_url", text or None)
    elif not is_allowed(url, config.include, config.exclude):
        notes.add("excluded", url)
    else:
        return FoundImage(
            url,
            _value(record, columns["title"], notes),
            tuple(_labels(record, columns["labels"], notes)),
            _value(record, columns["license"], notes) or config.license,
            _value(record, columns["attribution"], notes) or config.attribution,
        )
    return None


def _value(record: Mapping[str, Any], names: Sequence[str], notes: Notes) -> str:
    return _as_text(record.get(names[0]), names[0], notes) if names else ""


def _as_text(value: object, name: str, notes: Notes) -> str:
    text = plain_value(value)
    if text is None:
        notes.add("not_text", f"{name}: {str(value)[:100]}")
    return clean(text or "")


def _labels(record: Mapping[str, Any], names: Sequence[str], notes: Notes) -> Iterator[str]:
    for name in names:
        value = record.get(name)
        for one in value[:MAX_LABELS] if isinstance(value, list | tuple) else [value]:
            yield _as_text(one, name, notes)

"""Reads images in folders, with metadata in the format of Hugging Face `datasets`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.contract import UserError
from pipeline.errors import Failure
from pipeline.importers.items import (
    IMAGE_SUFFIXES,
    STAGE,
    Items,
    as_labels,
    as_text,
    broken_metadata,
    is_file,
    make_item,
    read_file,
)
from pipeline.outside_text import NOT_UTF8, has_invalid_bytes, open_text
from pipeline.web.failures import failure
from pipeline.web.local_files import file_url

_Row = tuple[int, dict[str, Any] | str]
"""A line number, and its values or an error message."""


def image_folder(path: Path) -> Items:
    """Read images in folders whose names are the labels. A metadata.jsonl or metadata.csv beside
    them (Hugging Face `datasets`) takes precedence: images that it does not list are skipped."""
    if not path.is_dir():
        raise UserError(f"{path}: not a folder")
    metadata: dict[Path, dict[str, Any]] = {}
    has_metadata = False
    for file in sorted(path.rglob("metadata.*")):
        if file.suffix not in _READERS or not is_file(file):
            continue
        has_metadata = True
        yield from _read_metadata(file, metadata)
    for file in sorted(path.rglob("*")):
        if file.suffix.casefold() not in IMAGE_SUFFIXES or file.is_dir():
            continue
        facts = metadata.get(file)
        if has_metadata and facts is None:
            continue  # for example an image of the dataset card
        if not is_file(file):
            yield failure(STAGE, file_url(file), "wrong_type", detail="not a file")
            continue
        labels = as_labels(file.parent.relative_to(path).parts)
        if facts is not None:
            labels = as_labels(facts.get("label"))
        yield make_item(file_url(file), partial(read_file, file), labels, as_text(file.name),
                        facts or {})  # fmt: skip


def _read_metadata(file: Path, found: dict[Path, dict[str, Any]]) -> Iterator[Failure]:
    """Add the values of a metadata file, by image; yield the failures of its rows."""
    for number, row in _READERS[file.suffix](file):
        if isinstance(row, str):
            yield broken_metadata(f"{file_url(file)}#{number}", f"line {number}: {row}")
        elif not isinstance(row.get("file_name"), str):
            detail = f"line {number}: file_name: missing"
            yield broken_metadata(f"{file_url(file)}#{number}", detail)
        else:
            found[file.parent / row["file_name"]] = row


def _jsonl_rows(file: Path) -> Iterator[_Row]:
    with open_text(file.open("rb")) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if has_invalid_bytes(line):
                yield number, NOT_UTF8
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON ({error})"
                continue
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(file: Path) -> Iterator[_Row]:
    with open_text(file.open("rb")) as lines:
        reader = csv.DictReader(lines)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, f"not CSV ({error})"
                continue
            if row is None:
                return
            texts = (value for value in row.values() if isinstance(value, str))
            yield reader.line_num, NOT_UTF8 if any(map(has_invalid_bytes, texts)) else dict(row)


_READERS = {".jsonl": _jsonl_rows, ".csv": _csv_rows}

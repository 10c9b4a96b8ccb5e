"""Reads tables of metadata: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from pipeline.imaging.limits import ImageError
from pipeline.importers.tree import Tree
from pipeline.outside_text import NOT_UTF8, has_invalid_bytes, open_text
from pipeline.sources.list_files import BATCH, BROKEN, arrow, plain_records

Row = tuple[int, dict[str, Any] | str]
"""A line number, and its values or an error message."""


def _jsonl_rows(tree: Tree, name: str) -> Iterator[Row]:
    with open_text(tree.open(name)) as lines:
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


def _separator(header: str) -> str:
    """Return what separates the columns of a header: comma, semicolon or tab; comma if none of them
    makes `file_name` a column."""
    for separator in ",;\t":
        with suppress(csv.Error):
            if "file_name" in next(csv.reader([header], delimiter=separator), []):
                return separator
    return ","


def _csv_rows(tree: Tree, name: str) -> Iterator[Row]:
    with open_text(tree.open(name)) as lines:
        first = next(lines, "")
        reader = csv.DictReader(chain([first], lines), delimiter=_separator(first))
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


def _parquet_rows(tree: Tree, name: str) -> Iterator[Row]:
    pyarrow, parquet = arrow()
    number = 0
    try:
        with tree.open(name) as file, parquet.ParquetFile(file, pre_buffer=False) as opened:
            for batch in opened.iter_batches(BATCH):
                for row in plain_records(batch):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, *BROKEN) as error:
        yield number + 1, f"not Parquet ({error})"


def _checked(read: Callable[[Tree, str], Iterator[Row]]) -> Callable[[Tree, str], Iterator[Row]]:
    """Return a reader that yields an error message for a file that cannot be read."""

    def rows(tree: Tree, name: str) -> Iterator[Row]:
        try:
            yield from read(tree, name)
        except ImageError as error:
            yield 1, error.detail or error.kind
        except OSError as error:
            yield 1, error.strerror or str(error)

    return rows


READERS = {
    "jsonl": _checked(_jsonl_rows),
    "csv": _checked(_csv_rows),
    "parquet": _checked(_parquet_rows),
}
"""Readers by extension."""

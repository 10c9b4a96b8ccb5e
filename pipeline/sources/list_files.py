"""Reads records from JSON Lines, CSV and Parquet files.

Invalid lines and values are skipped or counted, and do not affect the others.
"""

from __future__ import annotations

import csv
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import UserError
from pipeline.outside_text import parse_json
from pipeline.reading import open_regular
from pipeline.sources.interface import CorruptFile, Notes
from pipeline.sources.json_stream import json_elements
from pipeline.sources.text_lines import Lines, WholeText, is_array, unpack_text

BATCH = 10_000
"""Number of rows of a Parquet file to read at a time."""

BROKEN = (OSError, EOFError, zlib.error)
"""Exceptions for a file that ends early or cannot be read."""

FORMATS = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".json": "json",
}  # fmt: skip


def list_format(path: Path) -> str | None:
    """Return the format of a list by its extension; None if it is unknown."""
    return FORMATS.get(without_gz(path.name).suffix.lower())


def without_gz(name: str) -> Path:
    """Return the name without the extension `.gz`."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


class _LineRecorder:
    """Passes lines to a CSV reader and records those of the current row."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.lines: list[tuple[str, int]] = []
        self.has_ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            text = next(self._lines)
        except StopIteration:
            self.has_ended = True
            raise
        self.lines.append((text, self._lines.offset))
        return text


def csv_records(lines: Lines, delimiter: str, notes: Notes) -> Iterator[list[str]]:
    """Yield the rows of a CSV file. If a row is invalid, for example because of an unclosed quote,
    only its first line is skipped: the reader continues with the next line."""
    recorder = _LineRecorder(lines)
    reader = csv.reader(recorder, delimiter=delimiter)
    while True:
        recorder.lines.clear()
        bad: object = ""
        row: list[str] | None = []
        try:
            row = next(reader, None)
        except csv.Error as error:
            bad = error
        if (
            recorder.has_ended
            and len(recorder.lines) > 1
            and _has_open_quote(recorder.lines, delimiter)
        ):
            bad = "a quote that is never closed"
        if bad:
            (first, after), *rest = recorder.lines
            notes.add("bad_line", f"{bad}: {first[:60]}")
            lines.push_back(rest, after)
            recorder = _LineRecorder(lines)
            reader = csv.reader(recorder, delimiter=delimiter)
        elif row is None:
            return
        elif row:
            yield row


def _has_open_quote(lines: Sequence[tuple[str, int]], delimiter: str) -> bool:
    try:
        list(csv.reader([text for text, _ in lines], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def json_records(lines: Iterable[str], notes: Notes) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            notes.add("bad_line", line)


def array_records(
    file: IO[bytes], notes: Notes, most: float = math.inf
) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a JSON array, or of JSON Lines; a text in an array is a URL.

    Raises:
        CorruptFile: the array ends early or is damaged, or has more than `most` characters.
    """
    if not is_array(file):
        yield from json_records(Lines(file, 0, notes, most), notes)
        return
    try:
        for _, value in json_elements(cast(IO[str], WholeText(file, notes, most))):
            if isinstance(value, dict):
                yield value
            elif isinstance(value, str):
                yield {"url": value}
            else:
                notes.add("bad_entry", f"{value!r:.100}")
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"not a JSON array: {error or 'nested too deeply'}") from None


def records_of(path: Path, notes: Notes) -> Iterator[Mapping[str, Any]]:
    """Yield all records of a JSON Lines or Parquet file; invalid lines are counted.

    Raises:
        CorruptFile: the file ends early or does not have the format of its extension.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        if list_format(path) == "parquet":
            pyarrow, parquet = arrow()
            try:
                with parquet.ParquetFile(file, pre_buffer=False) as opened:
                    for batch in opened.iter_batches(BATCH):
                        yield from plain_records(batch)
            except (pyarrow.ArrowException, *BROKEN) as error:
                raise CorruptFile(f"not Parquet ({error})") from None
            return
        try:
            yield from json_records(Lines(unpack_text(file, notes), 0, notes), notes)
        except BROKEN as error:
            raise CorruptFile(f"{type(error).__name__}: {error}") from None


def arrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises:
        UserError: they are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install shellgan[parquet]") from None
    return pyarrow, parquet


def plain_records(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow batch. A value that Python cannot represent is None (a date after
    the year 9999) or bytes (text that is not UTF-8)."""
    columns = [_plain_column(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _plain_column(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError):
        return [_plain_scalar(one) for one in column]


def _plain_scalar(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes() if hasattr(scalar, "as_buffer") else None
    except (ValueError, OverflowError):
        return None

"""Files of records from outside: JSON Lines, CSV and Parquet, read record by record.

A line or a value that cannot be read is counted or left out, and the others arrive.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import UserError
from pipeline.outside_text import parse_json
from pipeline.reading import open_regular
from pipeline.sources.interface import BrokenFile, Notes

GZIP = b"\x1f\x8b"
MAX_LINE = 16 << 20
"""Bytes of a line of text."""

BATCH = 10_000
"""Rows of a Parquet file that are read at a time."""

BROKEN = (OSError, EOFError, zlib.error)
"""What a file raises that breaks off or cannot be read."""

FORMATS = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip


def list_format(path: Path) -> str | None:
    """The format that a list's name says."""
    return FORMATS.get(without_gz(path.name).suffix.lower())


def without_gz(name: str) -> Path:
    """The name without the ending of a gzipped file."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


class Lines:
    """The lines of a file as text, counting the bytes they take. A line of more than `MAX_LINE`
    bytes is counted as bad and skipped without being held in memory."""

    def __init__(self, file: IO[bytes], offset: int, notes: Notes, most: float = math.inf) -> None:
        file.seek(offset)
        self._file = file
        self._notes = notes
        self._most = most
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE):
            start, self.offset = self.offset, self.offset + len(line)
            self._check_size()
            text = line.decode("utf-8-sig" if not start else "utf-8", "replace")
            if len(line) < MAX_LINE or line.endswith(b"\n"):
                yield text
                continue
            self._notes.add("bad_line", f"more than {MAX_LINE >> 20} MiB: {text[:60]}")
            while rest := self._file.readline(MAX_LINE):
                self.offset += len(rest)
                self._check_size()
                if rest.endswith(b"\n"):
                    break

    def _check_size(self) -> None:
        if self.offset > self._most:
            raise BrokenFile(f"unpacks to more than source.max_gb = {self._most / 1e9:g} GB")


def csv_records(reader: Iterator[list[str]], notes: Notes) -> Iterator[list[str]]:
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            notes.add("bad_line", error)
            continue
        if row is None:
            return
        if row:
            yield row


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


def records_of(path: Path, notes: Notes) -> Iterator[Mapping[str, Any]]:
    """All records of a JSON Lines or Parquet file; a line that is none is counted.

    Raises:
        BrokenFile: the file breaks off, or is not of its format.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        if list_format(path) == "parquet":
            pyarrow, parquet = arrow()
            try:
                with parquet.ParquetFile(file, pre_buffer=False) as opened:
                    for batch in opened.iter_batches(BATCH):
                        yield from plain_records(batch)
            except (pyarrow.ArrowException, *BROKEN) as error:
                raise BrokenFile(f"not Parquet ({error})") from None
            return
        try:
            zipped = file.read(2) == GZIP
            file.seek(0)
            text = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
            yield from json_records(Lines(text, 0, notes), notes)
        except BROKEN as error:
            raise BrokenFile(f"{type(error).__name__}: {error}") from None


def arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

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
    """The rows of an Arrow batch; a value that Python cannot have (text that is not UTF-8, a date
    beyond the year 9999) is None, or its bytes."""
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

"""Rows of the URL manifest: their keys and checksums, and single rows by key."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.contract import (
    DatasetPaths,
    ManifestRow,
    UserError,
    complete_lines,
    image_key,
    read_rows,
)
from pipeline.databases import KeyIndex, sqlite_errors
from pipeline.web.urls import canonical_url

BATCH = 5000
"""Number of rows that are written together."""

_TAIL = 4096

T = TypeVar("T")


def row_key(row: dict[str, Any]) -> str:
    """Return the key of a manifest row. The stored key may be missing, or not match an edited URL.

    Raises:
        ValueError: the row has no URL.
    """
    url = row.get("url")
    if not isinstance(url, str) or not url:
        raise ValueError("url: missing")
    key = image_key(url)
    return key if row.get("key") == key else image_key(canonical_url(url) or url)


def manifest_row(row: dict[str, Any]) -> ManifestRow:
    """Return the row of a line of the manifest, with the key of its URL.

    Raises:
        ValueError: the line is not a manifest row.
    """
    return ManifestRow.from_json({**row, "key": row_key(row)})


def manifest_rows(dataset: DatasetPaths) -> Iterator[ManifestRow]:
    """Return the rows of the URL manifest.

    Raises:
        UserError: a line is not a manifest row; the message names file and line.
    """
    return read_rows(dataset.url_manifest, manifest_row)


def parse_line(path: Path, line: bytes, number: int = 0) -> ManifestRow:
    """Return the row of a line of the manifest `path`.

    Args:
        number: the number of the line, from 1; 0: it is looked up for the message.

    Raises:
        UserError: the line is not a manifest row; the message names file and line.
    """
    try:
        return manifest_row(json.loads(line))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        with path.open("rb") as lines:
            numbers = (count for count, one in enumerate(lines, start=1) if one == line)
            number = number or next(numbers, 0)
        raise UserError(
            f"{path}:{number}: not a manifest row ({error}); correct or delete this line"
        ) from None


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield `items` in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def key_number(key: str) -> int:
    """Return a manifest key as SQLite's signed 64-bit integer."""
    number = int(key, 16)
    return number - (1 << 64) if number >= 1 << 63 else number


def row_checksum(row: ManifestRow) -> int:
    """Return a checksum of the metadata of an image on a page, to detect changes."""
    metadata: list[object] = [row.title, row.labels, row.license, row.attribution]
    metadata += [value for value in (row.page_opt_out, row.boxes) if value]
    return zlib.crc32(json.dumps(metadata).encode()) + 1


def tail_digest(path: Path, end: int) -> str:
    """Return a digest of the last bytes of a file before `end`, to recognise the file."""
    with path.open("rb") as file:
        file.seek(max(0, end - _TAIL))
        return hashlib.sha256(file.read(min(end, _TAIL))).hexdigest()


class ManifestLookup:
    """Indexes a manifest by key and reads single rows on request. A context manager.

    Raises:
        UserError: a complete line is not a manifest row; the message names file and line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with ExitStack() as stack:
            self._file = stack.enter_context(path.open("rb")) if path.exists() else None
            self._index = stack.enter_context(closing(KeyIndex()))
            with sqlite_errors(path, "run the same command again"):
                self._index.add(str(path), self._offsets())
            self._stack = stack.pop_all()

    def __len__(self) -> int:
        return len(self._index)

    def __enter__(self) -> ManifestLookup:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, key: str) -> ManifestRow | None:
        """Return the row of `key`, or None if the manifest does not contain it."""
        offset = self._index.get(key)
        if self._file is None or offset is None:
            return None
        self._file.seek(offset)
        return ManifestRow.from_json({**json.loads(self._file.readline()), "key": key})

    def _offsets(self) -> Iterator[tuple[str, int]]:
        """Yield the key and the offset of each line."""
        offset = 0
        for number, line in enumerate(complete_lines(self._file or ()), start=1):
            if line.strip():
                yield parse_line(self._path, line, number).key, offset
            offset += len(line)

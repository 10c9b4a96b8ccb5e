"""Looks up rows of the URL manifest by key, without reading the manifest into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, ManifestRow, UserError, image_key, read_rows
from pipeline.databases import KeyIndex, sqlite_errors
from pipeline.web.urls import canonical_url


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
        for number, line in enumerate(self._file or (), start=1):
            if not line.endswith(b"\n"):
                break  # an incomplete line after a crash
            if line.strip():
                try:
                    yield manifest_row(json.loads(line)).key, offset
                except (ValueError, TypeError, AttributeError, RecursionError) as error:
                    raise UserError(
                        f"{self._path}:{number}: not a manifest row ({error}); "
                        "correct or delete this line"
                    ) from None
            offset += len(line)

"""Rows of the URL manifest by key, without holding the manifest in memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.contract import DatasetPaths, ManifestRow, UserError, image_key, read_rows
from pipeline.web.urls import canonical_url


def row_key(row: dict[str, Any]) -> str:
    """The key of a manifest row; the one in it may be missing or be that of a URL edited since.

    Raises:
        ValueError: the row has no URL.
    """
    url = row.get("url")
    if not isinstance(url, str) or not url:
        raise ValueError("url: missing")
    key = image_key(url)
    return key if row.get("key") == key else image_key(canonical_url(url) or url)


def manifest_row(row: dict[str, Any]) -> ManifestRow:
    """The row that a line of the manifest holds, with the key that its URL has.

    Raises:
        ValueError: the line is no manifest row.
    """
    return ManifestRow.from_json({**row, "key": row_key(row)})


def manifest_rows(dataset: DatasetPaths) -> Iterator[ManifestRow]:
    """The rows of the URL manifest.

    Raises:
        UserError: a line is no manifest row; the message names file and line.
    """
    return read_rows(dataset.url_manifest, manifest_row)


class ManifestLookup:
    """Reads a manifest once for its keys (16 bytes of memory a row), then rows as they are asked.

    Raises:
        UserError: a whole line is no manifest row; the message names file and line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb") if path.exists() else None
        try:
            keys, offsets = self._scan()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._offsets = offsets[order]

    def __len__(self) -> int:
        return len(self._keys)

    def __enter__(self) -> ManifestLookup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._file:
            self._file.close()

    def get(self, key: str) -> ManifestRow | None:
        """The row of `key`, or None where the manifest does not list it."""
        number = np.uint64(int(key, 16))
        place = int(np.searchsorted(self._keys, number))
        if self._file is None or place == len(self._keys) or self._keys[place] != number:
            return None
        self._file.seek(int(self._offsets[place]))
        return ManifestRow.from_json({**json.loads(self._file.readline()), "key": key})

    def _scan(self) -> tuple[np.ndarray, np.ndarray]:
        keys, offsets = array("Q"), array("Q")
        offset = 0
        for number, line in enumerate(self._file or (), start=1):
            if not line.endswith(b"\n"):
                break  # torn by a crash
            if line.strip():
                try:
                    keys.append(int(manifest_row(json.loads(line)).key, 16))
                except (ValueError, TypeError, AttributeError, RecursionError) as error:
                    raise UserError(
                        f"{self._path}:{number}: not a manifest row ({error}); "
                        "correct or delete this line"
                    ) from None
                offsets.append(offset)
            offset += len(line)
        return np.array(keys, np.uint64), np.array(offsets, np.uint64)

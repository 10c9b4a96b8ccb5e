"""Permanently excluded images: `manifests/NAME/forgotten.jsonl`, one line per image.

`select` rejects these images even if they are found again. A line contains only the key, not the
URL. An image that was selected before (`held`) keeps an empty place in the shuffle, so that no
other image moves to another shard; its labels keep the class numbers unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, read_rows

_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Forgotten:
    """The keys of all forgotten images, and the labels, by key, of those that were in the
    shards."""

    keys: frozenset[str] = frozenset()
    labels_by_key: dict[str, tuple[str, ...]] = field(default_factory=dict)


def forgotten_path(dataset: DatasetPaths) -> Path:
    return dataset.manifest_dir / "forgotten.jsonl"


def _line(row: dict[str, Any]) -> tuple[str, tuple[str, ...] | None]:
    key, labels = row.get("key"), row.get("labels") or []
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"key: not 16 hex digits: {key!r:.60}")
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise ValueError("labels: not a list of texts")
    return key, tuple(labels) if row.get("held") else None


def read_forgotten(dataset: DatasetPaths) -> Forgotten:
    """Return the forgotten images of a dataset."""
    keys: set[str] = set()
    held: dict[str, tuple[str, ...]] = {}
    for key, labels in read_rows(forgotten_path(dataset), _line):
        keys.add(key)
        if labels is not None:
            held[key] = labels
    return Forgotten(frozenset(keys), held)

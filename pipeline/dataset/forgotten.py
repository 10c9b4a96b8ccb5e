"""What was asked to be forgotten, `manifests/NAME/forgotten.jsonl`: a line an image, for good.

Select leaves these images out however often they are found again. A line holds the key alone, not
the address. One that was in the kept list (`held`) keeps its empty place in the shuffle, so that
no other image moves to another shard; its labels keep the class numbers as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.contract import Dataset, read_jsonl


@dataclass(frozen=True)
class Forgotten:
    """The keys of all forgotten images, and the labels of those that held a place in the shards,
    by key."""

    keys: frozenset[str] = frozenset()
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)


def forgotten_path(dataset: Dataset) -> Path:
    return dataset.manifest / "forgotten.jsonl"


def read_forgotten(dataset: Dataset) -> Forgotten:
    """What was asked to be forgotten of a dataset so far."""
    keys: set[str] = set()
    held: dict[str, tuple[str, ...]] = {}
    for line in read_jsonl(forgotten_path(dataset)):
        keys.add(line["key"])
        if line.get("held"):
            held[line["key"]] = tuple(line["labels"])
    return Forgotten(frozenset(keys), held)

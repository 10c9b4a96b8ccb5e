"""Finds a group of images of another kind in a collection, by their features.

`outliers.foreign_rows` decides what is of another kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.originals.parts import is_complete, planned_parts
from pipeline.select.features import Features, Keys, read_features, record_features
from pipeline.select.outliers import foreign_groups
from pipeline.select.selection import SelectedImage, read_selection

SHEET = "strangest.jpg"
"""The contact sheet of a foreign group, in `data/NAME`."""
LIST = "strangest.json"
"""All its images; written last, so that both exist if it does."""
MIN_IMAGES = 100
_MAX_PARTS = 2
"""Features are computed for this many parts of about 1,000 images, which takes a minute or two."""
_MAX_COMPARED = 4000


@dataclass(frozen=True)
class ForeignGroup:
    """Images of another kind than the rest, or of several: the strangest of the largest difference
    first; how many images were compared; and the smaller of the first group's two distances."""

    images: list[SelectedImage]
    compared: int
    distance: float


def find_foreign_group(dataset: DatasetPaths, features: str, log: EventLog) -> ForeignGroup | None:
    """Return the images of another kind in the selection, or among `_MAX_PARTS` parts of it; None
    if there are none, or too few images.

    Args:
        features: the extractor, as in `select.features`.

    Raises:
        UserError: the extractor does not exist, or a file is damaged.
    """
    parts = [part for part in planned_parts(dataset) if is_complete(dataset, part)]
    places = np.linspace(0, len(parts) - 1, min(_MAX_PARTS, len(parts))).round().astype(int)
    record_features(dataset, features, log, only={parts[place] for place in places})
    selected = {int(one.key, 16): one for one in read_selection(dataset.selection)}
    keys, rows = _read_some(dataset, features, np.array(sorted(selected), np.uint64))
    if len(keys) < MIN_IMAGES:
        return None
    groups = foreign_groups(rows)
    if not groups:
        return None
    images = [selected[int(keys[row])] for group, _ in groups for row in group]
    return ForeignGroup(images, len(keys), groups[0][1])


def _read_some(dataset: DatasetPaths, name: str, keys: Keys) -> tuple[Keys, Features]:
    """Return at most about `_MAX_COMPARED` of the images with recorded features."""
    found = [
        (part[known], rows[known])
        for part, rows in read_features(dataset, name)
        if (known := np.isin(part, keys)).any()
    ]
    if not found:
        return np.zeros(0, np.uint64), np.zeros((0, 0), np.float32)
    some, features = (np.concatenate(one) for one in zip(*found, strict=True))
    every = -(-len(some) // _MAX_COMPARED)
    return some[::every], features[::every]

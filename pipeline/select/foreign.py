"""Finds a group of images of another kind in a collection, by their features.

The images are divided into two groups by spherical k-means. The smaller group is of another kind if
two cosine distances exceed `LIMIT`: that of the groups' centres, and the median distance of its
images to the nearest image outside. Each excludes what the other lets through: kinds of garments
have near centres, and drawn shells of an unusual species have near neighbours.

Measured with EfficientNet-Lite0, the smaller of the two distances is at most 0.44 in collections of
one kind (photographs of garments; shells of all species, icons, letters and line drawings, all
drawn; also in random subsets of 100 to 450 images) and at least 0.49 if 3 to 50 % are of another
kind (shells or icons among garments, garments among icons or shells, pages of text among either).
Icons among drawn shells (0.42 to 0.45), pages among line drawings (0.44), line drawings of garments
among their photographs (0.35) and icons among letters (0.2) are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.originals.parts import is_complete, planned_parts
from pipeline.select.features import Features, Keys, read_features, record_features
from pipeline.select.selection import SelectedImage, read_selection

SHEET = "strangest.jpg"
"""The contact sheet of a foreign group, in `data/NAME`."""
LIST = "strangest.json"
"""All its images; written last, so that both exist if it does."""
LIMIT = 0.46
MIN_IMAGES = 100
_MIN_GROUP, _MIN_SHARE = 8, 0.02
_MAX_PARTS = 2
"""Features are computed for this many parts of about 1,000 images, which takes a minute or two."""
_MAX_COMPARED = 4000
_ROUNDS = 50


@dataclass(frozen=True)
class ForeignGroup:
    """Images of another kind than the rest: the strangest first; how many images were compared;
    and the smaller of the two distances."""

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
    order, distance = foreign_rows(rows)
    if distance <= LIMIT:
        return None
    return ForeignGroup([selected[int(keys[row])] for row in order], len(keys), distance)


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


def foreign_rows(rows: Features) -> tuple[NDArray[np.int64], float]:
    """Return the smaller of the two groups that differ most, the farthest from the other group
    first, and the smaller of their two distances (0 if there is no group of sufficient size).

    Args:
        rows: features of length 1, (n, d).
    """
    centre = _unit(np.median(rows, axis=0))
    far = np.argsort(rows @ centre, kind="stable")
    strangest = rows[far[0]]
    seeds = (
        (centre, _unit(rows[far[: max(3, len(rows) // 50)]].mean(0))),
        (centre, strangest),
        (strangest, rows[np.argmin(rows @ strangest)]),
    )
    best: tuple[NDArray[np.int64], float] = np.zeros(0, np.int64), 0.0
    for first, second in seeds:
        is_small = _smaller_group(rows, np.stack([first, second]))
        if is_small.sum() < max(_MIN_GROUP, _MIN_SHARE * len(rows)):
            continue
        small, rest = rows[is_small], rows[~is_small]
        rest_centre = _unit(rest.mean(0))
        apart = 1 - float(_unit(small.mean(0)) @ rest_centre)
        nearest = 1 - float(np.median((small @ rest.T).max(axis=1)))
        if min(apart, nearest) > best[1]:
            order = np.argsort(small @ rest_centre, kind="stable")
            best = np.flatnonzero(is_small)[order], min(apart, nearest)
    return best


def _smaller_group(rows: Features, centres: Features) -> NDArray[np.bool_]:
    """Divide the rows into two groups, (n,), by spherical k-means from these centres, (2, d)."""
    is_second = np.zeros(len(rows), bool)
    for _ in range(_ROUNDS):
        before, is_second = is_second, (rows @ centres.T).argmax(axis=1) == 1
        if is_second.all() or not is_second.any():
            return np.zeros(len(rows), bool)
        if (before == is_second).all():
            break
        centres = np.stack([_unit(rows[one].mean(0)) for one in (~is_second, is_second)])
    return is_second if 2 * is_second.sum() <= len(rows) else ~is_second


def _unit(row: Features) -> Features:
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-12), np.float32)

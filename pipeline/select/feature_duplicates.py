"""Finds copies by the recorded features: cropped, mirrored and recoloured images.

Images of one kind have similar features, so features are compared after whitening: the directions
in which the dataset varies most are scaled down (Jégou and Chum, ECCV 2012), in the
`_DIMENSIONS` strongest ones. Distances then depend on the dataset, and one limit suits more
datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths
from pipeline.select.duplicates import Indices
from pipeline.select.features import Features, Keys, read_placed_features, sample_features

_DIMENSIONS = 256
_DAMPING = 1.0
"""Added to the variance of each direction, in units of the mean variance of those directions. With
less, copies in a small dataset look different, because its variance is that of the copies."""
_BLOCK = 1024
_KEPT_BLOCK = 16_384


@dataclass(frozen=True)
class FeatureDuplicates:
    """For each image the index of the image that it is a copy of, or -1, and their distance.

    `dimensions` is the number of directions to whiten, and `images` the number of images that have
    features. With no more images than directions, most copies are too distant.
    """

    duplicate_of: Indices
    distance: NDArray[np.float32]
    images: int = 0
    dimensions: int = 0


def feature_duplicates(
    dataset: DatasetPaths, name: str, keys: Keys, limit: float
) -> FeatureDuplicates:
    """Find copies by a greedy walk: keep each image unless a kept one is at most `limit` away.

    The distance is 1 − cosine of the whitened features, from 0 to 2. Needs 1 kB of memory per
    image, and time that grows with the square of their number.

    Args:
        name: the extractor that recorded the features; images without features are no copies.
        keys: the images, (n,); the preferred copy first.
    """
    rows, has_features, dimensions = _whitened_features(dataset, name, keys)
    order = np.flatnonzero(has_features)
    found = FeatureDuplicates(
        np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.float32), len(order), dimensions
    )
    kept = np.empty(len(order), np.int64)
    count = 0
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        best, match = _nearest(rows, kept[:count], block)
        within = rows[block] @ rows[block].T
        local: list[int] = []
        for i, index in enumerate(block):
            if local and (near := within[i, local]).max() > best[i]:
                best[i], match[i] = near.max(), block[local[int(near.argmax())]]
            if 1 - best[i] <= limit:
                found.duplicate_of[index] = match[i]
                found.distance[index] = max(0.0, 1 - float(best[i]))
            else:
                local.append(i)
        kept[count : count + len(local)] = block[local]
        count += len(local)
    return found


def _nearest(rows: Features, kept: Indices, block: Indices) -> tuple[Features, Indices]:
    """Return the highest cosine of each image of a block to a kept one, and the index of that
    one."""
    best, match = np.full(len(block), -np.inf, np.float32), np.full(len(block), -1, np.int64)
    for start in range(0, len(kept), _KEPT_BLOCK):
        some = kept[start : start + _KEPT_BLOCK]
        cosines = rows[block] @ rows[some].T
        place = cosines.argmax(axis=1)
        highest = cosines[np.arange(len(block)), place]
        better = highest > best
        best[better], match[better] = highest[better], some[place[better]]
    return best, match


def _whitened_features(
    dataset: DatasetPaths, name: str, keys: Keys
) -> tuple[Features, NDArray[np.bool_], int]:
    """Return features of length 1, (n, up to `_DIMENSIONS`), which images have any, and the number
    of directions that more images would have."""
    sample = sample_features(dataset, name, np.sort(keys))
    known = np.zeros(len(keys), np.bool_)
    dimensions = min(_DIMENSIONS, sample.shape[1] or _DIMENSIONS)
    if len(sample) < 2:
        return np.zeros((len(keys), 1), np.float32), known, dimensions
    center, directions = _whitening(sample)
    rows = np.zeros((len(keys), directions.shape[1]), np.float32)
    for places, features in read_placed_features(dataset, name, keys):
        whitened = (features - center) @ directions
        norms = np.linalg.norm(whitened, axis=1, keepdims=True)
        rows[places] = whitened / np.maximum(norms, 1e-12)
        known[places] = True
    return rows, known, dimensions


def _whitening(features: Features) -> tuple[Features, Features]:
    """Return the mean (d,) and the scaled strongest directions (d, up to `_DIMENSIONS`)."""
    center = features.mean(axis=0)
    size = features.shape[1]
    variances, directions = np.linalg.eigh(np.cov(features, rowvar=False).reshape(size, size))
    strongest = slice(None, -min(_DIMENSIONS, len(features) - 1, size) - 1, -1)
    kept = np.maximum(variances[strongest], 0)
    scaled = directions[:, strongest] / np.sqrt(kept + _DAMPING * max(float(kept.mean()), 1e-12))
    return center, np.ascontiguousarray(scaled, np.float32)

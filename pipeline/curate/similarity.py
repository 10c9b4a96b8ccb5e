"""Similar images: short feature vectors, and clusters of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.select.features import Features

DIMENSIONS = 64
_MAX_SAMPLE = 20_000
"""Maximum number of evenly spaced images that define the principal components and the clusters, to
limit time and memory."""
_ROUNDS = 12
_BLOCK = 8192
_HASH_WEIGHT = 0.1
"""Weight of a bit of the perceptual hash beside a colour from 0 to 1."""

Blocks = Callable[[], Iterator[tuple[NDArray[np.int64], Features]]]
"""Yields blocks of places (m,) and features (m, d), the same at each call."""


def color_blocks(colors: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> Blocks:
    """Return features from colours (n, d) and perceptual hashes (n,)."""

    def blocks() -> Iterator[tuple[NDArray[np.int64], Features]]:
        for begin in range(0, len(colors), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            fields = colors[part].astype(np.float32) / 255
            octets = hashes[part].astype(">u8").view(np.uint8).reshape(-1, 8)
            bits = np.unpackbits(octets, axis=1).astype(np.float32) - 0.5
            rows = np.concatenate([fields, _HASH_WEIGHT * bits], axis=1)
            yield np.arange(begin, begin + len(rows)), rows

    return blocks


def principal_features(blocks: Blocks, count: int) -> Features:
    """Return the `DIMENSIONS` principal components of the features of `count` images, each row
    scaled to length 1. Rows without features are zero.

    Needs memory for the result and a sample, not for all features at once.
    """
    reduced = np.zeros((count, DIMENSIONS), np.float32)
    every = max(1, count // _MAX_SAMPLE)
    sample = [rows[::every] for _, rows in blocks() if len(rows)]
    if not sample:
        return reduced
    chosen = np.concatenate(sample)
    mean = chosen.mean(axis=0)
    chosen = chosen - mean
    _, vectors = np.linalg.eigh(chosen.T @ chosen / len(chosen))
    axes = vectors[:, ::-1][:, :DIMENSIONS]
    for places, rows in blocks():
        reduced[places, : axes.shape[1]] = (rows - mean) @ axes
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    return np.asarray(reduced / np.maximum(norms, 1e-12), np.float32)


def find_clusters(features: Features, clusters: int) -> NDArray[np.int64]:
    """Return the cluster of each image by k-means (Lloyd 1982), begun as by k-means++ (Arthur and
    Vassilvitskii 2007). The result depends only on the arguments.

    Args:
        features: (n, d).
        clusters: maximum number of clusters, at least 1.
    """
    sample = features[:: max(1, len(features) // _MAX_SAMPLE)]
    if not len(sample):
        return np.zeros(0, np.int64)
    centers = _first_centers(sample, clusters, np.random.default_rng(0))
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centers)
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, sample)
        counts = np.bincount(nearest, minlength=len(centers))[:, None]
        centers = np.where(counts > 0, sums / np.maximum(counts, 1), centers)
    return _nearest(features, centers)


def _first_centers(sample: Features, clusters: int, rng: np.random.Generator) -> Features:
    chosen = [int(rng.integers(len(sample)))]
    apart = np.full(len(sample), np.inf, np.float32)
    while len(chosen) < clusters:
        offsets = sample - sample[chosen[-1]]
        apart = np.minimum(apart, np.einsum("ij,ij->i", offsets, offsets))
        total = float(apart.sum(dtype=np.float64))
        if total <= 0:
            break
        at = int(np.searchsorted(np.cumsum(apart, dtype=np.float64), rng.random() * total))
        chosen.append(min(at, len(sample) - 1))
    return sample[chosen]


def _nearest(features: Features, centers: Features) -> NDArray[np.int64]:
    norms = np.einsum("ij,ij->i", centers, centers)
    found = [
        np.argmin(norms - 2 * features[begin : begin + _BLOCK] @ centers.T, axis=1)
        for begin in range(0, len(features), _BLOCK)
    ]
    return np.concatenate(found)

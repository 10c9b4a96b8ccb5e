"""Distances between the rows of feature arrays, in blocks, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

_BLOCK = 1024


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of at most 1024 rows that cover `count` rows."""
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def squared_distances(a: Features, b: Features) -> Floats:
    """‖aᵢ − bⱼ‖² of all rows, (n, m)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    found = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * (x @ y.T)
    return np.asarray(np.maximum(found, 0.0))


def unit_rows(features: Features) -> Floats:
    """Scale the rows to length 1; rows of zeros are unchanged."""
    x = features.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0))


def nearest_cosine(a: Features, b: Features, apart: bool = False) -> tuple[Floats, NDArray[Any]]:
    """Return, for each row of `a`, the cosine distance 1 − |cos| to the nearest row of `b`, and its
    index.

    `apart`: `b` is `a` itself, and a row is not its own neighbour.
    """
    x, y = unit_rows(a), unit_rows(b)
    distances, numbers = np.empty(len(x)), np.empty(len(x), np.int64)
    for rows in blocks(len(x)):
        found = 1 - np.abs(x[rows] @ y.T)
        if apart:
            found[np.arange(len(found)), np.arange(rows.start, rows.stop)] = np.inf
        numbers[rows] = found.argmin(1)
        distances[rows] = found.min(1)
    return np.maximum(distances, 0.0), numbers

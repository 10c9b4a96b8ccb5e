"""Connected regions of a small mask, computed from runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def label_regions(mask: Mask) -> NDArray[np.int32]:
    """Label the 4-connected regions of a (height, width) mask from 1; 0 is outside the mask.

    Two passes over the runs of each row (Rosenfeld and Pfaltz, 1966, on runs).
    """
    parents: list[int] = [0]
    rows: list[list[tuple[int, int, int]]] = []
    above: list[tuple[int, int, int]] = []
    for ends in _runs(mask):
        runs = []
        for start, end in ends:
            touching = [run[2] for run in above if run[0] < end and start < run[1]]
            number = _join(parents, touching)
            runs.append((start, end, number))
        rows.append(runs)
        above = runs
    labels = np.zeros(mask.shape, np.int32)
    numbers: dict[int, int] = {}
    for y, runs in enumerate(rows):
        for start, end, number in runs:
            root = _root(parents, number)
            labels[y, start:end] = numbers.setdefault(root, len(numbers) + 1)
    return labels


def _runs(mask: Mask) -> list[list[tuple[int, int]]]:
    """Return the starts and ends of the runs of each row."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, edges = np.nonzero(padded[:, 1:] != padded[:, :-1])
    found: list[list[tuple[int, int]]] = [[] for _ in range(height)]
    ends = edges.tolist()
    for place, row in enumerate(rows[::2].tolist()):
        found[row].append((ends[2 * place], ends[2 * place + 1]))
    return found


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _join(parents: list[int], touching: list[int]) -> int:
    """Merge the labels of the runs that touch this one and return the result; a new label if none
    does."""
    if not touching:
        parents.append(len(parents))
        return len(parents) - 1
    roots = [_root(parents, number) for number in touching]
    least = min(roots)
    for root in roots:
        parents[root] = least
    return least


def largest_region(mask: Mask) -> Mask:
    """Return the largest 4-connected region with its holes filled; an empty mask if the mask is
    empty."""
    labels = label_regions(mask)
    if not labels.any():
        return np.zeros_like(mask)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    outside = label_regions(~np.pad(largest, 1))
    return np.asarray(outside[1:-1, 1:-1] != outside[0, 0])

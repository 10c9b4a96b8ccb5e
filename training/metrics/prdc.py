"""Precision, recall, density and coverage: fidelity and variety by nearest neighbours.

Precision and recall after Kynkäänniemi et al. 2019 (eq. 1 and 2, k = 3), density and coverage after
Naeem et al. 2020 (eq. 3 and 5, k = 5). The neighbourhood of a sample extends to its k-th nearest
neighbour in its own set. All values depend on the number of samples; compare only equal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.metrics.distances import Features, Floats, blocks, squared_distances

NEIGHBOUR = 3
NEIGHBOUR_DENSITY = 5


@dataclass(frozen=True)
class Prdc:
    """`precision`: fraction of fakes in a neighbourhood of a real sample. `recall`: fraction of
    real samples in a neighbourhood of a fake. `density`: number of real neighbourhoods that
    contain a fake, divided by k; may exceed 1. `coverage`: fraction of real neighbourhoods that
    contain a fake."""

    precision: float
    recall: float
    density: float
    coverage: float


def radii(features: Features, *neighbours: int) -> list[Floats]:
    """Return squared distances (n,) to the k-th nearest other row, for each k of `neighbours`."""
    found = [np.empty(len(features)) for _ in neighbours]
    for rows in blocks(len(features)):
        distances = squared_distances(features[rows], features)
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        distances.partition([k - 1 for k in neighbours], axis=1)
        for radius, k in zip(found, neighbours, strict=True):
            radius[rows] = distances[:, k - 1]
    return found


def compute_prdc(real: Features, fake: Features) -> Prdc:
    """Compute the four metrics for features (n, d) and (m, d), both with at least 6 rows."""
    near, wide = radii(real, NEIGHBOUR, NEIGHBOUR_DENSITY)
    [around_fake] = radii(fake, NEIGHBOUR)
    precise = balls = 0
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in blocks(len(fake)):
        distances = squared_distances(fake[rows], real)
        precise += int((distances <= near).any(1).sum())
        recalled |= (distances <= around_fake[rows, None]).any(0)
        held = distances < wide
        balls += int(held.sum())
        covered |= held.any(0)
    return Prdc(
        precise / len(fake),
        float(recalled.mean()),
        balls / (NEIGHBOUR_DENSITY * len(fake)),
        float(covered.mean()),
    )

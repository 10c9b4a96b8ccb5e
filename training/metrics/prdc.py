"""Fidelity and variety by nearest neighbours, told apart.

Precision and recall after Kynkäänniemi et al. 2019 (eq. 1 and 2, k = 3), density and coverage after
Naeem et al. 2020 (eq. 3 and 5, k = 5). A sample's ball reaches to its k-th nearest neighbour in its
own set. All of them change with the number of samples; compare at equal numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.metrics.distances import Features, Floats, blocks, squared_distances

NEIGHBOUR = 3
NEIGHBOUR_DENSITY = 5


@dataclass(frozen=True)
class Prdc:
    """`precision`: the share of fakes within a ball of a real sample. `recall`: the share of real
    samples within a ball of a fake. `density`: how many real balls hold a fake, in units of k; may
    exceed 1. `coverage`: the share of real balls that hold a fake."""

    precision: float
    recall: float
    density: float
    coverage: float


def radii(features: Features, *neighbours: int) -> list[Floats]:
    """Squared distances (n,) to the k-th nearest other row, for each k of `neighbours`."""
    found = [np.empty(len(features)) for _ in neighbours]
    for rows in blocks(len(features)):
        distances = squared_distances(features[rows], features)
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        distances.partition([k - 1 for k in neighbours], axis=1)
        for radius, k in zip(found, neighbours, strict=True):
            radius[rows] = distances[:, k - 1]
    return found


def compute_prdc(real: Features, fake: Features) -> Prdc:
    """The four measures of features (n, d) and (m, d), both at least 6 rows."""
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

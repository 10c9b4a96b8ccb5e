"""Outlier scores of images, and groups of another kind, by the features of a network.

Images are divided into two groups by spherical k-means. The smaller group is of another kind if two
cosine distances exceed `LIMIT`: that of the groups' centres, and the median distance of its images
to the nearest image outside. Each excludes what the other lets through: kinds of garments have near
centres, and drawn shells of an unusual species have near neighbours.

Measured with EfficientNet-Lite0, the smaller of the two distances is at most 0.44 in collections of
one kind (photographs of garments; shells of all species, icons, letters and line drawings, all
drawn; also in random subsets of 100 to 450 images) and at least 0.49 if 3 to 50 % are of another
kind (shells or icons among garments, garments among icons or shells, pages of text among either).
Further groups are nearer to the limit: in random subsets of a collection of five kinds, the second
group had 0.44 to 0.49. Icons among drawn shells (0.42 to 0.45), pages among line drawings (0.44),
line drawings of garments among their photographs (0.35) and icons among letters (0.2) are not
found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths
from pipeline.select.features import Features, Keys, read_placed_features, sample_features

LIMIT = 0.46
_MIN_GROUP, _MIN_SHARE = 8, 0.02
_ROUNDS = 50
_BLOCK = 1024


def outlier_scores(dataset: DatasetPaths, name: str, keys: Keys) -> NDArray[np.float32]:
    """Return the outlier score of each image; NaN if its features are not recorded.

    The score is the cosine distance to the centre (the median of each feature) in robust standard
    deviations (1.4826 times the median absolute deviation) from the median distance. Images of
    another kind count for none of the three, so that they are found even if they are frequent. The
    scores of the most typical images are negative.

    Args:
        keys: the images to score, (n,); only these define the centre.
    """
    found = np.full(len(keys), np.nan, np.float32)
    some = sample_features(dataset, name, np.sort(keys))
    if not len(some):
        return found
    typical = np.delete(some, all_foreign_rows(some), axis=0)
    centre = _unit(np.median(typical, axis=0))
    for places, features in read_placed_features(dataset, name, keys):
        found[places] = 1 - features @ centre
    return robust_deviations(found, 1 - typical @ centre)


def robust_deviations(values: Features, typical: Features) -> Features:
    """Return the distances of values from the median of the `typical` ones, in robust standard
    deviations of these."""
    middle = np.median(typical)
    deviation = 1.4826 * np.median(np.abs(typical - middle))
    return np.asarray((values - middle) / max(float(deviation), 1e-6), np.float32)


def all_foreign_rows(rows: Features) -> NDArray[np.int64]:
    """Return the rows of all groups of another kind than the majority; none if there is no
    majority.

    Args:
        rows: features of length 1, (n, d).
    """
    groups = [group for group, _ in foreign_groups(rows)]
    found = np.concatenate([np.zeros(0, np.int64), *groups])
    return found if 2 * len(found) < len(rows) else found[:0]


def foreign_groups(rows: Features) -> list[tuple[NDArray[np.int64], float]]:
    """Return the groups of another kind as by `foreign_rows`, each found among the rows that the
    groups before leave. The first may be half of all rows; after further ones, more than half
    remain.

    Args:
        rows: features of length 1, (n, d).
    """
    left = np.arange(len(rows))
    found: list[tuple[NDArray[np.int64], float]] = []
    while len(left):
        some, distance = foreign_rows(rows[left])
        if distance <= LIMIT or (found and 2 * (len(left) - len(some)) <= len(rows)):
            break
        found.append((left[some], distance))
        left = np.delete(left, some)
    return found


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
        blocks = np.array_split(small, -(-len(small) // _BLOCK))
        closest = np.concatenate([(block @ rest.T).max(axis=1) for block in blocks])
        nearest = 1 - float(np.median(closest))
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

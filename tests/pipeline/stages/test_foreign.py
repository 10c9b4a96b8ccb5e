"""Images of another kind are found by their features."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.select.outliers import LIMIT, all_foreign_rows, foreign_rows

Rows = NDArray[np.float32]


def kind(seed: int, count: int, spread: float) -> Rows:
    """Features of one kind: a direction of its own, and a difference per image."""
    random = np.random.default_rng(seed)
    rows = np.abs(random.normal(size=(1, 64))) * (random.random((1, 64)) < 0.3)
    rows = rows + spread * np.abs(random.normal(size=(count, 64)))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("count", [10, 30, 150])
def test_a_kind_of_its_own_is_found_completely(count: int) -> None:
    order, distance = foreign_rows(np.concatenate([kind(1, 200, 0.2), kind(2, count, 0.2)]))
    assert distance > LIMIT
    assert sorted(order) == list(range(200, 200 + count))


@pytest.mark.parametrize(("seed", "spread"), [(1, 0.2), (2, 0.5), (3, 1.0)])
def test_one_kind_is_not_divided(seed: int, spread: float) -> None:
    assert foreign_rows(kind(seed, 200, spread))[1] < LIMIT


def test_a_few_images_are_not_a_kind() -> None:
    assert foreign_rows(np.concatenate([kind(1, 200, 0.2), kind(2, 5, 0.2)]))[1] < LIMIT


def test_a_group_with_neighbours_outside_is_not_another_kind() -> None:
    one, other = kind(1, 150, 0.2), kind(2, 20, 0.2)
    assert foreign_rows(np.concatenate([one, other]))[1] > LIMIT
    weights = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    between = weights * other[:1] + (1 - weights) * one[:1]
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    assert foreign_rows(np.concatenate([one, between, other]))[1] < LIMIT


def test_all_groups_but_the_majority_are_foreign() -> None:
    rows = np.concatenate([kind(1, 60, 0.2), kind(2, 30, 0.2), kind(3, 20, 0.2)])
    assert sorted(all_foreign_rows(rows)) == list(range(60, 110))
    assert not len(all_foreign_rows(np.concatenate([kind(1, 40, 0.2), kind(2, 40, 0.2)])))

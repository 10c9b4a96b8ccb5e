"""The measures against torch-fidelity, against their definitions word by word, and where the answer
is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from training.metrics.distances import blocks
from training.metrics.frechet import frechet_distance, gaussian
from training.metrics.inception_score import inception_score
from training.metrics.kernel import kernel_distance
from training.metrics.memorisation import (
    copies,
    copy_distance,
    memorisation,
    memorisation_penalised,
)
from training.metrics.prdc import compute_prdc

Array = np.ndarray[Any, np.dtype[np.float64]]


def clouds(count: int, others: int, dims: int, seed: int = 0) -> tuple[Array, Array]:
    """Two overlapping clouds of correlated, non-negative features."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(dims, dims)) / dims**0.5
    a = np.maximum(random.normal(size=(count, dims)) @ mix, -0.3)
    b = np.maximum(random.normal(0.2, 0.9, size=(others, dims)) @ mix, -0.3)
    return a, b


@pytest.mark.parametrize(("count", "others"), [(300, 250), (40, 30), (300, 30), (30, 300)])
def test_frechet_is_torch_fidelitys_and_scipys(count: int, others: int) -> None:
    a, b = clouds(count, others, 64)
    ours = frechet_distance(gaussian(a), gaussian(b))
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    if min(count, others) > 64:  # else scipy's root of a singular matrix is no truth
        root = np.trace(sqrtm(one @ two).real)
        direct = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + two) - 2 * root
        assert ours == pytest.approx(direct, rel=1e-8)


def test_frechet_of_known_gaussians() -> None:
    # axes of length 1 and 3 at distance 5: 5² + (1 − 3)² in each of two dimensions
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * (3 / 4) ** 0.5
    a, b = gaussian(square), gaussian(3 * square + [3, 4])
    assert frechet_distance(a, b) == pytest.approx(25 + 4 + 4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_torch_fidelitys() -> None:
    a, b = clouds(300, 260, 48)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=7, kid_subset_size=90,
        kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1, rng_seed=11, verbose=False,
    )  # fmt: skip
    random = np.random.RandomState(11)  # theirs draws the subsets with it
    values = [
        kernel_distance(*(one[random.choice(len(one), 90, replace=False)] for one in (a, b)))
        for _ in range(7)
    ]
    assert np.mean(values) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert np.std(values) == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)


def test_kernel_distance_is_the_mean_over_pairs() -> None:
    a, b = clouds(9, 7, 5)

    def kernel(x: Array, y: Array) -> float:
        return float((x @ y / 5 + 1) ** 3)

    own = np.mean([kernel(x, y) for x, y in itertools.permutations(a, 2)])
    others = np.mean([kernel(x, y) for x, y in itertools.permutations(b, 2)])
    cross = np.mean([kernel(x, y) for x, y in itertools.product(a, b)])
    assert kernel_distance(a, b) == pytest.approx(own + others - 2 * cross)


def test_kernel_distance_has_no_bias() -> None:
    random = np.random.default_rng(3)
    drawn = [
        kernel_distance(random.normal(size=(20, 8)), random.normal(size=(20, 8)))
        for _ in range(400)
    ]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / 20
    assert min(drawn) < 0


def test_precision_and_recall_are_torch_fidelitys() -> None:
    real, fake = clouds(220, 180, 12, seed=5)
    found = compute_prdc(real, fake)
    precision, recall = calculate_precision_recall_full(
        torch.from_numpy(fake), torch.from_numpy(real)
    )
    assert found.precision == pytest.approx(precision, abs=1e-6)
    assert found.recall == pytest.approx(recall, abs=1e-6)
    assert 0.05 < found.precision < 0.999  # a case that tells something
    assert 0.05 < found.recall < 0.999


def test_density_and_coverage_word_by_word() -> None:
    real, fake = clouds(60, 50, 6, seed=2)
    radius = [sorted(np.linalg.norm(real - x, axis=1))[5] for x in real]  # the first is itself
    inside = [
        [np.linalg.norm(y - x) < r for x, r in zip(real, radius, strict=True)] for y in fake
    ]  # fmt: skip
    found = compute_prdc(real, fake)
    assert found.density == pytest.approx(np.sum(inside) / (5 * len(fake)))
    assert found.coverage == pytest.approx(np.mean(np.any(inside, axis=0)))


def test_manifold_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = clouds(70, 50, 6)
    whole = compute_prdc(real, fake)
    monkeypatch.setattr("training.metrics.distances._BLOCK", 16)
    assert [rows.stop - rows.start for rows in blocks(50)] == [16, 16, 16, 2]
    assert compute_prdc(real, fake) == whole


def test_class_score_is_torch_fidelitys() -> None:
    logits = np.random.default_rng(0).normal(size=(203, 30)) * 3
    for splits in (1, 10):
        theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)
        assert inception_score(logits, splits) == pytest.approx(
            theirs["inception_score_mean"], rel=1e-9
        )


def test_class_score_at_its_ends() -> None:
    sure = np.eye(10)[np.arange(200) % 10] * 100
    assert inception_score(sure) == pytest.approx(10)
    assert inception_score(sure[:1].repeat(50, 0)) == pytest.approx(1)


def test_memorisation_word_by_word() -> None:
    real, fake = clouds(30, 20, 8)
    expected = np.mean([
        min(1 - abs(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)) for x in real) for y in fake
    ])  # fmt: skip
    assert memorisation(real, fake) == pytest.approx(expected)
    assert memorisation(real, -real[::2]) == pytest.approx(0, abs=1e-12)


def test_mifid_punishes_below_the_threshold_only() -> None:
    assert memorisation_penalised(30.0, 0.02, 0.1) == pytest.approx(1500)
    assert memorisation_penalised(30.0, 0.1, 0.1) == 30.0
    assert memorisation_penalised(30.0, 0.0, 0.1) > 1e15


def test_copies_are_found_and_new_ones_are_not() -> None:
    random = np.random.default_rng(1)
    real, new = random.normal(size=(400, 32)) ** 2, random.normal(size=(200, 32)) ** 2
    bound = copy_distance(real)
    share, distances = copies(real, np.concatenate([new[:150], real[:50] * 1.001]), bound)
    assert 0.25 <= share < 0.29
    assert distances[150:].max() < 1e-9
    assert copies(real, new, bound)[0] < 0.04

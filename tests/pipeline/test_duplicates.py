"""Duplicates against the plain definition: a loop over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.duplicates import exact_duplicates, near_duplicates, nearest_within


def clustered(n: int, seed: int) -> np.ndarray:
    """Hashes of which many are a few bits from one another, as scraped images' are."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, size=max(1, n // 8), dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), n)]
    for _ in range(6):
        flip = np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)
        hashes = np.where(rng.random(n) < 0.5, hashes ^ flip, hashes)
    return hashes


def greedy(hashes: np.ndarray, order: np.ndarray, bits: int) -> set[int]:
    """The definition, image by image: those kept."""
    kept: list[int] = []
    for i in order:
        if all(bin(int(hashes[i]) ^ int(hashes[k])).count("1") > bits for k in kept):
            kept.append(int(i))
    return set(kept)


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 12])
@pytest.mark.parametrize("n", [1, 40, 1500])
def test_the_walk_equals_the_definition(n: int, bits: int) -> None:
    hashes = clustered(n, seed=n + bits)
    order = np.random.default_rng(1).permutation(n)
    rank = np.argsort(order)
    found = near_duplicates(hashes, order, bits)
    kept = set(np.flatnonzero(found.of < 0).tolist())
    assert kept == greedy(hashes, order, bits)
    for i in np.flatnonzero(found.of >= 0):
        named = int(found.of[i])
        assert named in kept
        assert rank[named] < rank[i]
        assert bin(int(hashes[i]) ^ int(hashes[named])).count("1") == found.bits[i] <= bits


def test_images_left_out_of_the_order_are_not_judged() -> None:
    hashes = np.zeros(4, np.uint64)
    found = near_duplicates(hashes, np.array([2, 3]), 3)
    assert found.of.tolist() == [-1, -1, -1, 2]


def test_nearest_within_equals_all_pairs_also_where_a_band_is_crowded() -> None:
    rng = np.random.default_rng(5)
    known = clustered(3000, 6)
    known[::2] &= np.uint64(0xFFFF)  # half share every band but the lowest
    queries = known[rng.integers(0, 3000, 500)] ^ (np.uint64(1) << np.uint64(7))
    distances = np.bitwise_count(queries[:, None] ^ known[None, :]).astype(int)
    for bits in (0, 2, 5, 9):
        match, distance = nearest_within(known, queries, bits)
        near = distances.min(axis=1) <= bits
        assert (match >= 0).tolist() == near.tolist()
        assert match[near].tolist() == distances.argmin(axis=1)[near].tolist()
        assert distance[near].tolist() == distances.min(axis=1)[near].tolist()


def test_a_heap_of_equal_hashes_keeps_the_preferred_one() -> None:
    hashes = np.full(200_000, 77, np.uint64)
    order = np.arange(200_000)[::-1]
    found = near_duplicates(hashes, order, 3)
    assert np.flatnonzero(found.of < 0).tolist() == [199_999]


def test_exact_duplicates_name_the_preferred_copy() -> None:
    digests = np.array([[1, 1], [1, 2], [1, 1], [0, 1], [1, 2], [1, 1]], np.uint64)
    order = np.array([5, 4, 3, 2, 1, 0])
    assert exact_duplicates(digests, order).tolist() == [5, 4, 5, -1, -1, -1]

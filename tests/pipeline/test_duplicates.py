"""Duplicates against the plain definition: a loop over all pairs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.select.dedup_index import DedupIndex
from pipeline.select.duplicates import (
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    exact_duplicates,
    hash_words,
    near_duplicates,
    nearest_duplicates,
)


def flipped(values: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers with up to so many of their 64 bits turned."""
    for _ in range(times):
        flip = np.uint64(1) << rng.integers(0, 64, values.shape).astype(np.uint64)
        values = np.where(rng.random(values.shape) < 0.5, values ^ flip, values)
    return values


def clustered(n: int, seed: int) -> PerceptualHashes:
    """Prints of which many are a few bits from one another, as scraped images' are."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, size=(max(1, n // 8), 5), dtype=np.uint64)
    some = centres[rng.integers(0, len(centres), n)]
    return PerceptualHashes(flipped(some[:, 0], 6, rng), flipped(some[:, 1:], 4, rng))


def bits_between(a: np.ndarray, b: np.ndarray) -> int:
    return sum(bin(int(x) ^ int(y)).count("1") for x, y in zip(a.ravel(), b.ravel(), strict=True))


def are_near(prints: PerceptualHashes, i: int, k: int, near: DuplicateThresholds) -> bool:
    return (
        bits_between(prints.hashes[i], prints.hashes[k]) <= near.bits
        and bits_between(prints.details[i], prints.details[k]) <= near.detail
    )


def greedy(prints: PerceptualHashes, order: np.ndarray, near: DuplicateThresholds) -> set[int]:
    """The definition, image by image: those kept."""
    kept: list[int] = []
    for i in order:
        if not any(are_near(prints, i, k, near) for k in kept):
            kept.append(int(i))
    return set(kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "detail"), [(0, 256), (1, 256), (3, 8), (7, 11), (12, 256), (64, 9)]
)
@pytest.mark.parametrize("n", [1, 40, 900])
def test_the_walk_equals_the_definition(n: int, bits: int, detail: int) -> None:
    prints, near = clustered(n, seed=n + bits), DuplicateThresholds(bits, detail)
    order = np.random.default_rng(1).permutation(n)
    rank = np.argsort(order)
    found = near_duplicates(prints, order, near)
    kept = set(np.flatnonzero(found.duplicate_of < 0).tolist())
    assert kept == greedy(prints, order, near)
    for i in np.flatnonzero(found.duplicate_of >= 0):
        named = int(found.duplicate_of[i])
        assert named in kept
        assert rank[named] < rank[i]
        assert are_near(prints, i, named, near)
        assert bits_between(prints.hashes[i], prints.hashes[named]) == found.bits[i]


def test_images_left_out_of_the_order_are_not_compared() -> None:
    prints = PerceptualHashes(np.zeros(4, np.uint64), np.zeros((4, 4), np.uint64))
    found = near_duplicates(prints, np.array([2, 3]), DuplicateThresholds(3, 0))
    assert found.duplicate_of.tolist() == [-1, -1, -1, 2]


def test_nearest_within_equals_all_pairs_also_where_a_band_is_crowded() -> None:
    rng = np.random.default_rng(5)
    known = clustered(3000, 6)
    known.hashes[::2] &= np.uint64(0xFFFF)  # half share every band but the lowest
    queries = known[rng.integers(0, 3000, 500)]
    queries = PerceptualHashes(queries.hashes ^ (np.uint64(1) << np.uint64(7)), queries.details)
    distances = np.bitwise_count(queries.hashes[:, None] ^ known.hashes[None, :]).astype(int)
    detail = detail_distance(queries.details[:, None], known.details[None, :])
    for bits, most in ((0, 256), (2, 8), (5, 256), (9, 10)):
        match, distance = nearest_duplicates(known, queries, DuplicateThresholds(bits, most))
        allowed = np.where(detail <= most, distances, 999)
        near = allowed.min(axis=1) <= bits
        assert (match >= 0).tolist() == near.tolist()
        assert match[near].tolist() == allowed.argmin(axis=1)[near].tolist()
        assert distance[near].tolist() == allowed.min(axis=1)[near].tolist()


def test_a_heap_of_equal_prints_keeps_the_preferred_one() -> None:
    prints = PerceptualHashes(np.full(200_000, 77, np.uint64), np.zeros((200_000, 4), np.uint64))
    order = np.arange(200_000)[::-1]
    found = near_duplicates(prints, order, DuplicateThresholds(3, 20))
    assert np.flatnonzero(found.duplicate_of < 0).tolist() == [199_999]


def test_copies_do_not_define_what_is_usual_and_share_the_score_of_the_kept_one() -> None:
    index, asked = DedupIndex(), list[int]()
    for key, sha256 in enumerate((7, 7, 8, 9, 9, 7), start=1):
        index.add(
            SimpleNamespace(record=SimpleNamespace(
                key=f"{key:016x}", width=9, height=9, bytes=9, phash=f"{key:016x}", detail_hash="",
                sha256=f"{sha256:064x}",
            )), None,
        )  # fmt: skip

    def score(keys: np.ndarray) -> np.ndarray:
        asked.extend(int(key) for key in keys)
        return np.where(keys == 4, 5.0, 0.1).astype(np.float32)

    found = index.find_duplicates(None, 2.5, score)
    assert sorted(asked) == [1, 3, 4]
    assert [found.rejection(number, index) for number in range(6)] == [
        None, ("duplicate", f"{1:016x}"), None, ("off_topic", "5.00 deviations from the rest"),
        ("off_topic", "5.00 deviations from the rest"), ("duplicate", f"{1:016x}"),
    ]  # fmt: skip


def test_words_are_the_digits_in_order() -> None:
    assert hash_words(f"{1:016x}{2:016x}{3:016x}{2**64 - 1:016x}") == [1, 2, 3, 2**64 - 1]


def test_exact_duplicates_name_the_preferred_copy() -> None:
    digests = np.array([[1, 1], [1, 2], [1, 1], [0, 1], [1, 2], [1, 1]], np.uint64)
    order = np.array([5, 4, 3, 2, 1, 0])
    assert exact_duplicates(digests.T, order).tolist() == [5, 4, 5, -1, -1, -1]

"""Finds exact and near duplicates among a million images, in flat arrays.

Near duplicates have a small Hamming distance between their 64-bit perceptual hashes, and between
their 256-bit detail hashes. If two hashes that differ in at most d bits are cut into m bands, then
at least one band differs in at most d // m bits (pigeonhole principle; multi-index hashing,
Norouzi, Punjani and Fleet, CVPR 2012). So only hashes that share a band are compared, and detail
hashes only for images whose first hashes are near.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]

DETAIL_WORDS = 4
_LEAF = 512
_CANDIDATES = 1 << 21
_BANDS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class PerceptualHashes:
    """The hashes of n images: (n,) 64-bit hashes, and (n, 4) words of 256-bit detail hashes."""

    hashes: Hashes
    details: Hashes

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, which: NDArray[np.generic] | slice) -> PerceptualHashes:
        return PerceptualHashes(self.hashes[which], self.details[which])

    def words(self, which: Indices) -> list[Hashes]:
        """Return the hashes of these images as five columns of 64-bit words."""
        return [self.hashes[which], *(column[which] for column in self.details.T)]


@dataclass(frozen=True)
class DuplicateThresholds:
    """The maximum differences of near duplicates: `bits` of 64, and `detail` of 256 bits."""

    bits: int
    detail: int


def hash_words(digest: str) -> list[int]:
    """Return 64 hex digits as four 64-bit numbers."""
    return [int(digest[start : start + 16], 16) for start in range(0, 64, 16)]


def detail_distance(a: Hashes, b: Hashes) -> NDArray[np.int16]:
    """Return the number of bits in which each pair of detail hashes, (n, 4) words each, differs."""
    return np.asarray(np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int16))


@dataclass(frozen=True)
class Duplicates:
    """For each image the index of the image that it is a duplicate of, or -1, and the number of
    bits in which their perceptual hashes differ."""

    duplicate_of: Indices
    bits: NDArray[np.int16]


def exact_duplicates(digests: Iterable[Hashes], order: Indices) -> Indices:
    """Return for each image the index of the equal one that is first in `order`, or -1.

    Args:
        digests: the words of each image's digest, as columns of length n.
        order: all n indices, the preferred copy first.
    """
    digests, n = list(digests), len(order)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    by_digest = np.lexsort((rank, *digests))
    first = np.zeros(n, bool)
    first[:1] = True
    for column in digests:
        ranked = column[by_digest]
        first[1:] |= ranked[1:] != ranked[:-1]
    leader = by_digest[np.maximum.accumulate(np.where(first, np.arange(n), 0))]
    of = np.full(n, -1, np.int64)
    of[by_digest[~first]] = leader[~first]
    return of


def near_duplicates(
    prints: PerceptualHashes, order: Indices, near: DuplicateThresholds
) -> Duplicates:
    """Find near duplicates by a greedy walk in `order`: keep each image unless a kept one is near.

    So no two kept images are near each other, and every duplicate is near the kept image that its
    entry names.

    The walk is exact and recursive: duplicates of images that the first half keeps are removed from
    the second half in one join, then the second half is walked alone. So many equal images do not
    take quadratic time.

    Args:
        prints: the hashes of n images.
        order: the indices to walk, the preferred copy first; other images are ignored.
    """
    found = Duplicates(np.full(len(prints), -1, np.int64), np.zeros(len(prints), np.int16))
    repeats = exact_duplicates(prints.words(order), np.arange(len(order)))
    same = repeats >= 0
    found.duplicate_of[order[same]] = order[repeats[same]]
    _walk(prints, order[~same], near, found)
    # If the image that a copy equals is a near duplicate itself, name the image that this one
    # duplicates.
    via = found.duplicate_of[found.duplicate_of[order[same]]]
    moved = order[same][via >= 0]
    found.bits[moved] = found.bits[found.duplicate_of[moved]]
    found.duplicate_of[moved] = via[via >= 0]
    return found


def _walk(
    prints: PerceptualHashes, order: Indices, near: DuplicateThresholds, found: Duplicates
) -> Indices:
    """Walk `order`, record near duplicates in `found`, and return the remaining images in order."""
    if len(order) <= _LEAF:
        return _walk_leaf(prints, order, near, found)
    half = len(order) // 2
    kept = _walk(prints, order[:half], near, found)
    rest = order[half:]
    match, distance = nearest_duplicates(prints[kept], prints[rest], near)
    gone = match >= 0
    found.duplicate_of[rest[gone]] = kept[match[gone]]
    found.bits[rest[gone]] = distance[gone]
    return np.concatenate([kept, _walk(prints, rest[~gone], near, found)])


def _walk_leaf(
    prints: PerceptualHashes, order: Indices, near: DuplicateThresholds, found: Duplicates
) -> Indices:
    own = prints[order]
    distance = np.bitwise_count(own.hashes[:, None] ^ own.hashes[None, :]).astype(np.int16)
    one, other = np.nonzero(distance <= near.bits)
    apart = detail_distance(own.details[one], own.details[other]) > near.detail
    distance[one[apart], other[apart]] = near.bits + 1
    kept: list[int] = []
    for i in range(len(order)):
        to_kept = distance[i, kept]
        if len(kept) and to_kept.min() <= near.bits:
            nearest = kept[int(to_kept.argmin())]
            found.duplicate_of[order[i]] = order[nearest]
            found.bits[order[i]] = distance[i, nearest]
        else:
            kept.append(i)
    return order[kept]


def nearest_duplicates(
    known: PerceptualHashes, queries: PerceptualHashes, near: DuplicateThresholds
) -> tuple[Indices, NDArray[np.int16]]:
    """Return for each query the index of the known image that is its nearest duplicate, or -1, and
    the distance of the perceptual hashes.

    If several known images have the same distance, the first one is returned.
    """
    best = np.full(len(queries), (near.bits + 1) << 32, np.int64)
    if len(known) and len(queries):
        for band in _bands(len(known), near.bits):
            band.join(known, queries, near, best)
    distance = (best >> 32).astype(np.int16)
    return np.where(distance <= near.bits, best & 0xFFFFFFFF, -1), distance


@dataclass(frozen=True)
class _Band:
    """`width` bits of a hash from bit `start`; two hashes match if at most `radius` of them
    differ."""

    start: int
    width: int
    radius: int

    def of(self, hashes: Hashes) -> NDArray[np.uint64]:
        return (hashes >> np.uint64(self.start)) & np.uint64((1 << self.width) - 1)

    def join(
        self,
        known: PerceptualHashes,
        queries: PerceptualHashes,
        near: DuplicateThresholds,
        best: Indices,
    ) -> None:
        """Lower `best` (distance << 32 | index in known) to the pairs that match in this band."""
        values = self.of(known.hashes)
        by_value = np.argsort(values, kind="stable")
        values = values[by_value]
        asked = self.of(queries.hashes)
        for flip in self._flips():
            wanted = asked ^ np.uint64(flip)
            start = np.searchsorted(values, wanted, "left")
            count = np.searchsorted(values, wanted, "right") - start
            for begin, end in _cuts(count):
                _compare(known, queries, near, best, by_value, start, count, begin, end)

    def _flips(self) -> list[int]:
        return [
            sum(1 << bit for bit in chosen)
            for r in range(self.radius + 1)
            for chosen in combinations(range(self.width), r)
        ]


def _cuts(count: Indices) -> list[tuple[int, int]]:
    """Return ranges of queries that together have at most `_CANDIDATES` candidates, or of one
    query."""
    total = np.cumsum(count)
    cuts = []
    begin = 0
    while begin < len(count):
        done = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _CANDIDATES, "right")))
        cuts.append((begin, end))
        begin = end
    return cuts


def _compare(
    known: PerceptualHashes, queries: PerceptualHashes, near: DuplicateThresholds, best: Indices,
    by_value: Indices, start: Indices, count: Indices, begin: int, end: int,
) -> None:  # fmt: skip
    """Compare queries begin..end with their candidates, `count` from `start` in `by_value`."""
    some = begin + np.flatnonzero(count[begin:end])
    if not len(some):
        return
    many = count[some]
    who = np.repeat(some, many)
    first = np.cumsum(many) - many
    place = np.arange(len(who)) - np.repeat(first - start[some], many)
    candidate = by_value[place]
    distance = np.bitwise_count(known.hashes[candidate] ^ queries.hashes[who])
    hit = distance <= near.bits
    who, candidate, distance = who[hit], candidate[hit], distance[hit]
    hit = detail_distance(known.details[candidate], queries.details[who]) <= near.detail
    score = (distance[hit].astype(np.int64) << 32) | candidate[hit]
    np.minimum.at(best, who[hit], score)


def _bands(n: int, bits: int) -> list[_Band]:
    """Return the division of 64 bits into bands with the lowest cost of look-ups and candidates for
    n hashes."""

    def cost(bands: int) -> float:
        width = 64 / bands
        flips = sum(comb(round(width), r) for r in range(bits // bands + 1))
        return float(bands * flips * (1 + n / 2.0**width))

    bands = min((m for m in (*_BANDS, bits + 1)), key=cost)
    edges = [round(64 * i / bands) for i in range(bands + 1)]
    return [_Band(start, end - start, bits // bands) for start, end in pairwise(edges)]

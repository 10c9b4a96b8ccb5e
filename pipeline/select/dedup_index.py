"""Properties of all images in flat arrays, to find duplicates and outliers."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.select.duplicates import (
    DETAIL_WORDS,
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    exact_duplicates,
    hash_words,
    near_duplicates,
)
from pipeline.select.feature_duplicates import FeatureDuplicates
from pipeline.select.features import Keys
from pipeline.select.rules import (
    DUPLICATE,
    DUPLICATE_KEY,
    FEATURE_DUPLICATE,
    NEAR_DUPLICATE,
    OFF_TOPIC,
    REASONS,
)
from pipeline.select.selection import SelectedImage


class DedupIndex:
    """The properties of all images that finding duplicates needs, in the order of the records."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._pixels = array("Q")
        self._bytes = array("Q")
        self._hashes = array("Q")
        self._details = array("Q")
        self._digests = array("Q")
        self._reasons = array("b")
        self._detailed = array("b")

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def without_detail(self) -> int:
        """The number of images recorded without a detail hash, which cannot be near duplicates."""
        return len(self) - sum(self._detailed)

    def key(self, index: int) -> str:
        return f"{self._keys[index]:016x}"

    def reason(self, index: int) -> str | None:
        """Return the reason to reject an image by its own properties; None if there is none."""
        return REASONS[self._reasons[index]] if self._reasons[index] >= 0 else None

    def add(self, image: SelectedImage, reason: str | None) -> None:
        record = image.record
        self._keys.append(int(record.key, 16))
        self._pixels.append(record.width * record.height)
        self._bytes.append(record.bytes)
        self._hashes.append(int(record.phash, 16))
        self._details.extend(hash_words(record.detail_hash or "0" * 64))
        self._detailed.append(bool(record.detail_hash))
        self._digests.extend(hash_words(record.sha256))
        self._reasons.append(-1 if reason is None else REASONS.index(reason))

    def find_duplicates(
        self,
        near: DuplicateThresholds | None,
        off_topic: float | None,
        scorer: Callable[[Keys], NDArray[np.float32]] | None,
        comparer: Callable[[Keys], FeatureDuplicates] | None = None,
    ) -> DedupResult:
        """Find repeated keys, outliers and duplicates among the images that are not rejected yet.

        `comparer` finds the images whose features are those of another one (`feature_duplicates`).
        The largest of several duplicates is kept: more pixels, then more bytes, then the lower key.
        """
        keys = np.frombuffer(self._keys, np.uint64)
        sizes = [np.frombuffer(one, np.uint64) for one in (self._bytes, self._pixels)]
        count = len(keys)
        _, first = np.unique(keys, return_index=True)
        repeated = np.ones(count, bool)
        repeated[first] = False
        candidates = (np.frombuffer(self._reasons, np.int8) < 0) & ~repeated
        order = np.lexsort((keys, *(~size for size in sizes)))
        order = order[candidates[order]]
        same = np.full(count, -1, np.int64)
        digests = np.frombuffer(self._digests, np.uint64).reshape(-1, 4)
        leader = exact_duplicates([one[order] for one in digests.T], np.arange(len(order)))
        same[order[leader >= 0]] = order[leader[leader >= 0]]
        outliers = np.full(count, np.nan, np.float32)
        if scorer is not None and off_topic is not None and len(order):
            first = order[leader < 0]  # copies would move the centre
            scores = scorer(keys[first])
            outliers[first] = np.where(scores > off_topic, scores, np.nan)
            outliers[same >= 0] = outliers[same[same >= 0]]
        found = np.full(count, -1, np.int64)
        bits = np.zeros(count, np.int16)
        details = np.frombuffer(self._details, np.uint64).reshape(-1, DETAIL_WORDS)
        order = order[(leader < 0) & np.isnan(outliers[order])]
        if near is not None:
            detailed = order[np.frombuffer(self._detailed, np.int8)[order] > 0]
            duplicates = near_duplicates(
                PerceptualHashes(np.frombuffer(self._hashes, np.uint64), details), detailed, near
            )
            found, bits = duplicates.duplicate_of, duplicates.bits
        detail = np.zeros(count, np.int16)
        one = np.flatnonzero(found >= 0)
        detail[one] = detail_distance(details[one], details[found[one]])
        copies = np.full(count, -1, np.int64)
        distance = np.zeros(count, np.float32)
        if comparer is not None:
            order = order[found[order] < 0]
            compared = comparer(keys[order])
            is_copy = compared.duplicate_of >= 0
            copies[order[is_copy]] = order[compared.duplicate_of[is_copy]]
            distance[order] = compared.distance
        return DedupResult(repeated, outliers, same, found, bits, detail, copies, distance)


@dataclass(frozen=True)
class DedupResult:
    """For each image: whether an earlier image has its key (`repeated`), its outlier score (NaN if
    it is not an outlier), the index of the image that it is an exact (`same`) or near duplicate of
    (-1 if there is none), the numbers of bits by which the hashes of near duplicates differ, and
    the index of the image whose features it has (`copies`), with the `distance` of the features."""

    repeated: NDArray[np.bool_]
    outliers: NDArray[np.float32]
    same: NDArray[np.int64]
    near: NDArray[np.int64]
    bits: NDArray[np.int16]
    detail: NDArray[np.int16]
    copies: NDArray[np.int64]
    distance: NDArray[np.float32]

    def rejection(self, index: int, images: DedupIndex) -> tuple[str, str] | None:
        """Return the reason to reject an image and its details; None to keep it."""
        if self.repeated[index]:
            return DUPLICATE_KEY, "an earlier image has the same key"
        if not np.isnan(self.outliers[index]):
            return OFF_TOPIC, f"{self.outliers[index]:.2f} deviations from the rest"
        if self.same[index] >= 0:
            return DUPLICATE, images.key(self.same[index])
        if self.near[index] >= 0:
            return NEAR_DUPLICATE, (
                f"{images.key(self.near[index])} ({self.bits[index]} bits, "
                f"{self.detail[index]} of the detail)"
            )
        if self.copies[index] >= 0:
            return FEATURE_DUPLICATE, (
                f"{images.key(self.copies[index])} (distance {self.distance[index]:.3f})"
            )
        return None

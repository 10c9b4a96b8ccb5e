"""The sections of the preview that show pairs: near duplicates and copies."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.contract import DatasetPaths
from pipeline.options import SelectOptions
from pipeline.select.duplicates import (
    DETAIL_WORDS,
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    hash_words,
    near_duplicates,
)
from pipeline.select.feature_duplicates import feature_duplicates
from pipeline.select.preview_page import Section, Thumbnail, Thumbnails
from pipeline.select.rules import FEATURE_DUPLICATE, NEAR_DUPLICATE
from pipeline.select.selection import read_rejected, read_selection
from pipeline.select.stage import Lists, duplicate_thresholds

_PAIR_MARGIN = DuplicateThresholds(bits=4, detail=24)
"""Kept pairs are shown up to this many bits beyond the limits of near duplicates."""
_DISTANCE_MARGIN = 1.5
"""Kept pairs are shown up to this multiple of `duplicate_distance`."""

Pair = tuple[str, str, str]
"""A description of the difference, and the two keys."""


def near_duplicate_section(
    limits: SelectOptions, lists: Lists, counts: Counter[str], most: int, thumbnails: Thumbnails
) -> Iterator[Section]:
    """Yield a section with the rejected pairs that differ most, and the kept pairs that differ
    least."""
    near = duplicate_thresholds(limits)
    if near is None:
        return
    rejected = _widest_pairs(lists, NEAR_DUPLICATE, 2, most)
    hashes, details, keys = array("Q"), array("Q"), list[str]()
    for image in read_selection(lists.kept):
        if image.record.detail_hash:
            hashes.append(int(image.record.phash, 16))
            details.extend(hash_words(image.record.detail_hash))
            keys.append(image.key)
    prints = PerceptualHashes(
        np.frombuffer(hashes, np.uint64),
        np.frombuffer(details, np.uint64).reshape(-1, DETAIL_WORDS),
    )
    wider = DuplicateThresholds(near.bits + _PAIR_MARGIN.bits, near.detail + _PAIR_MARGIN.detail)
    found = near_duplicates(prints, np.arange(len(keys)), wider)
    alike = np.flatnonzero(found.duplicate_of >= 0)
    apart = detail_distance(prints.details[alike], prints.details[found.duplicate_of[alike]])
    closest = np.argsort(apart, kind="stable")[:most]
    kept = [
        (f"{found.bits[i]} bits, {detail} of the detail", keys[i], keys[found.duplicate_of[i]])
        for i, detail in zip(alike[closest], apart[closest], strict=True)
    ]
    below, above = _show_pairs(rejected, kept, thumbnails)
    yield Section(
        NEAR_DUPLICATE, f"near_duplicate_bits = {near.bits}, near_duplicate_detail = {near.detail}",
        counts[NEAR_DUPLICATE], below, above,
    )  # fmt: skip


def feature_duplicate_section(
    limits: SelectOptions,
    dataset: DatasetPaths,
    lists: Lists,
    counts: Counter[str],
    most: int,
    thumbnails: Thumbnails,
) -> Iterator[Section]:
    """Yield a section with the rejected copies that are farthest from the image that is kept, and
    the kept pairs that are closest."""
    limit = limits.duplicate_distance
    if limit is None:
        return
    rejected = _widest_pairs(lists, FEATURE_DUPLICATE, 1, most)
    keys = [image.key for image in read_selection(lists.kept)]
    numbers = np.array([int(key, 16) for key in keys], np.uint64)
    found = feature_duplicates(dataset, limits.features, numbers, limit * _DISTANCE_MARGIN)
    close = np.flatnonzero(found.duplicate_of >= 0)
    closest = close[np.argsort(found.distance[close], kind="stable")][:most]
    kept = [
        (f"distance {found.distance[i]:.3f}", keys[i], keys[found.duplicate_of[i]]) for i in closest
    ]
    below, above = _show_pairs(rejected, kept, thumbnails)
    yield Section(
        FEATURE_DUPLICATE, f"duplicate_distance = {limit:g}", counts[FEATURE_DUPLICATE],
        below, above,
    )  # fmt: skip


def _widest_pairs(lists: Lists, reason: str, word: int, most: int) -> list[Pair]:
    """Return the rejected pairs that differ most by the number at this `word` of the
    description."""
    pairs: list[tuple[float, Pair]] = []
    for line in read_rejected(lists.rejected):
        if line["reason"] == reason:
            other, _, how = line["detail"].rstrip(")").partition(" (")
            pairs.append((float(how.split()[word]), (how, line["key"], other)))
    return [pair for _, pair in heapq.nlargest(most, pairs)]


def _show_pairs(
    rejected: Iterable[Pair], kept: Iterable[Pair], thumbnails: Thumbnails
) -> tuple[list[Thumbnail], list[Thumbnail]]:
    sides = [list(rejected), list(kept)]
    records = thumbnails.find({key for pairs in sides for _, *pair in pairs for key in pair})
    below, above = (
        [
            thumbnails.show(records[key], f"{how}: {which}")
            for how, one, other in pairs
            for key, which in ((one, "this one"), (other, "duplicate of"))
            if key in records
        ]
        for pairs in sides
    )
    return below, above

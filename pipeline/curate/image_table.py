"""All images that can be curated, in flat arrays: about 400 bytes of memory per image."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord, UserError
from pipeline.crawl.manifest_lookup import ManifestLookup
from pipeline.curate.similarity import (
    color_blocks,
    find_clusters,
    principal_features,
)
from pipeline.curate.thumbnails import COLOR_VALUES, STAGE, load_thumbnails, make_thumbnails
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.select.curation import Curation
from pipeline.select.duplicates import (
    DETAIL_WORDS,
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    hash_words,
    near_duplicates,
)
from pipeline.select.features import (
    Features,
    parts_without_features,
    read_placed_features,
    record_features,
)
from pipeline.select.outliers import outlier_scores, robust_deviations
from pipeline.select.rules import DUPLICATE_KEY, REASONS
from pipeline.select.selection import NO_IMAGES, read_rejected
from pipeline.select.stage import duplicate_thresholds, scratch_lists, select

_PAIR_MARGIN = DuplicateThresholds(bits=2, detail=12)
"""Pairs are shown up to this many bits beyond the limits of near duplicates."""
_MAX_CLUSTERS = 400
KEPT = 255
"""The reason of an image that passes the limits."""

Column = NDArray[Any]


@dataclass
class ImageTable:
    """The images of n originals, in the order of the parts.

    `part` is the position of an image's part in `parts`, and `begin` and `end` are the place of its
    thumbnail in the part's file. `columns` are what the page shows and sorts by, `words` the texts
    that some of them number. `details` explains the rejections by the limits.
    """

    keys: NDArray[np.uint64]
    parts: list[str]
    part: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    columns: dict[str, Column]
    words: dict[str, list[str]]
    details: dict[int, str]
    features: Features
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        return f"{self.keys[index]:016x}"


@dataclass
class _Columns:
    """The columns while they are read."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    part: array[int] = field(default_factory=lambda: array("i"))
    width: array[int] = field(default_factory=lambda: array("I"))
    height: array[int] = field(default_factory=lambda: array("I"))
    bytes: array[int] = field(default_factory=lambda: array("Q"))
    sharpness: array[float] = field(default_factory=lambda: array("f"))
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    details: array[int] = field(default_factory=lambda: array("Q"))
    has_detail: array[int] = field(default_factory=lambda: array("b"))
    page: array[int] = field(default_factory=lambda: array("I"))
    label: array[int] = field(default_factory=lambda: array("I"))

    def add(self, record: OriginalRecord, part: int, page: int, label: int) -> None:
        self.keys.append(int(record.key, 16))
        self.part.append(part)
        self.width.append(min(record.width, (1 << 32) - 1))
        self.height.append(min(record.height, (1 << 32) - 1))
        self.bytes.append(record.bytes)
        self.sharpness.append(record.sharpness)
        self.hashes.append(int(record.phash, 16))
        self.details.extend(hash_words(record.detail_hash or "0" * 64))
        self.has_detail.append(bool(record.detail_hash))
        self.page.append(page)
        self.label.append(label)


def load_image_table(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, use_network: bool = True
) -> ImageTable:
    """Make what is missing (thumbnails, features), and load all images but forgotten ones.

    The selection on disk does not change.

    Args:
        use_network: compare images by the features of the recipe's network, which are computed
            once, about 50 ms per image; otherwise, and without the network, by colours and hashes.

    Raises:
        UserError: there is no image, or a file of the dataset is damaged.
    """
    rejected = _rejections(recipe, dataset, log)
    make_thumbnails(dataset, log)
    network, notes = _network(recipe.select.features if use_network else "", dataset, log)
    log.progress("images", 0, None, "images")
    found, parts, words = _read_columns(recipe, dataset)
    keys = np.frombuffer(found.keys, np.uint64)
    if not len(keys):
        raise UserError(f"{dataset.originals_dir}: {NO_IMAGES}")
    part = np.frombuffer(found.part, np.int32)
    begin, end, colors = _find_thumbnails(dataset, keys, part, parts)
    hashes = np.frombuffer(found.hashes, np.uint64)
    features, scores = _compare(dataset, network, keys, colors, hashes)
    copy_of, bits, details = _find_pairs(found, duplicate_thresholds(recipe.select))
    columns: dict[str, Column] = {
        "width": np.frombuffer(found.width, np.uint32),
        "height": np.frombuffer(found.height, np.uint32),
        "sharpness": np.frombuffer(found.sharpness, np.float32),
        "score": scores,
        "hue": _color_order(colors),
        "page": np.frombuffer(found.page, np.uint32),
        "label": np.frombuffer(found.label, np.uint32),
        "copy_of": copy_of,
        "bits": bits,
        "detail": details,
        "cluster": _ordered_clusters(features, scores),
        "color": colors.reshape(-1, COLOR_VALUES // 3, 3).mean(axis=1).astype(np.uint8),
        "reason": np.array([rejected.get(key, (KEPT,))[0] for key in keys.tolist()], np.uint8),
    }
    log.progress("images", len(keys), len(keys), "images")
    explained = {key: detail for key, (_, detail) in rejected.items()}
    return ImageTable(keys, parts, part, begin, end, columns, words, explained, features, notes)


def _rejections(recipe: Recipe, dataset: DatasetPaths, log: EventLog) -> dict[int, tuple[int, str]]:
    """Return the number of the reason for which the limits reject each image, and the details.

    Decisions are ignored, because the page applies them.
    """
    with scratch_lists(dataset) as lists:
        select(recipe, dataset, log, lists, Curation())
        return {
            int(line["key"], 16): (REASONS.index(line["reason"]), line["detail"])
            for line in read_rejected(lists.rejected)
            if line["reason"] != DUPLICATE_KEY
        }


def _network(name: str, dataset: DatasetPaths, log: EventLog) -> tuple[str, list[str]]:
    """Compute the missing features of a network, and return its name; or, if it cannot be loaded,
    an empty name and a note for the page."""
    if not name:
        return "", []
    if missing := parts_without_features(dataset, name):
        log.emit(STAGE, "computing features", parts=len(missing), skip_with="--no-network")
    try:
        record_features(dataset, name, log)
    except UserError as error:
        return "", [f"{error}. Images are compared by colours and perceptual hashes."]
    return name, []


def _compare(
    dataset: DatasetPaths, network: str, keys: NDArray[np.uint64], colors: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
) -> tuple[Features, NDArray[np.float32]]:  # fmt: skip
    """Return the features and the outlier score of each image; without a network those of its
    colours."""
    if network:
        blocks = partial(read_placed_features, dataset, network, keys)
        return principal_features(blocks, len(keys)), outlier_scores(dataset, network, keys)
    apart = colors / 255 - np.median(colors / 255, axis=0)
    distances = np.linalg.norm(apart, axis=1).astype(np.float32)
    scores = robust_deviations(distances, distances)
    return principal_features(color_blocks(colors, hashes), len(keys)), scores


def _read_columns(
    recipe: Recipe, dataset: DatasetPaths
) -> tuple[_Columns, list[str], dict[str, list[str]]]:
    """Return the columns of all images with a row in the manifest, the names of their parts, and
    the pages and labels that the columns number."""
    found = _Columns()
    parts: dict[str, int] = {}
    pages: dict[str, int] = {}
    labels: dict[str, int] = {}
    for record, row in _images(dataset):
        label = _label_of(row, recipe.shards.class_label or 0)
        found.add(
            record, parts.setdefault(record.part, len(parts)),
            pages.setdefault(row.page, len(pages)), labels.setdefault(label, len(labels)),
        )  # fmt: skip
    return found, list(parts), {"page": list(pages), "label": list(labels)}


def _images(dataset: DatasetPaths) -> Iterator[tuple[OriginalRecord, ManifestRow]]:
    forgotten = read_forgotten(dataset).keys
    seen: set[str] = set()
    with ManifestLookup(dataset.url_manifest) as rows:
        for record in read_records(dataset):
            if record.key in seen or record.key in forgotten:
                continue
            seen.add(record.key)
            if (row := rows.get(record.key)) is not None:
                yield record, row


def _label_of(row: ManifestRow, position: int) -> str:
    return row.labels[position] if position < len(row.labels) else ""


def _find_thumbnails(
    dataset: DatasetPaths, keys: NDArray[np.uint64], part: NDArray[np.int32], parts: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Return the begin and end of each thumbnail in its part's file, and its colours."""
    begin, end = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    colors = np.full((len(keys), COLOR_VALUES), 128, np.uint8)
    for number, name in enumerate(parts):
        made = load_thumbnails(dataset, name)
        if made is None or not len(made.keys):
            continue
        own = np.flatnonzero(part == number)
        order = np.argsort(made.keys)
        place = order[np.minimum(np.searchsorted(made.keys[order], keys[own]), len(order) - 1)]
        known = made.keys[place] == keys[own]
        own, place = own[known], place[known]
        begin[own], end[own], colors[own] = made.begins[place], made.ends[place], made.colors[place]
    return begin, end, colors


def _color_order(colors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return numbers that sort images by colour: gray ones by brightness (0 to 1), then the others
    by hue (1 to 2)."""
    mean = colors.reshape(len(colors), -1, 3).mean(axis=1) / 255
    red, green, blue = mean.T
    low, high = mean.min(axis=1), mean.max(axis=1)
    angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    hue = 1 + (angle / (2 * np.pi)) % 1
    return np.asarray(np.where(high - low < 0.06, high, hue), np.float32)


def _find_pairs(
    found: _Columns, near: DuplicateThresholds | None
) -> tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.uint16]]:
    """Return for each image the larger image that it is nearly a copy of, or -1, and the numbers of
    bits by which their two hashes differ."""
    near = near or DuplicateThresholds(bits=4, detail=20)
    wider = DuplicateThresholds(near.bits + _PAIR_MARGIN.bits, near.detail + _PAIR_MARGIN.detail)
    keys = np.frombuffer(found.keys, np.uint64)
    pixels = np.frombuffer(found.width, np.uint32).astype(np.uint64) * np.frombuffer(
        found.height, np.uint32
    )
    order = np.lexsort((keys, ~np.frombuffer(found.bytes, np.uint64), ~pixels))
    order = order[np.frombuffer(found.has_detail, np.int8)[order] > 0]
    prints = PerceptualHashes(
        np.frombuffer(found.hashes, np.uint64),
        np.frombuffer(found.details, np.uint64).reshape(-1, DETAIL_WORDS),
    )
    duplicates = near_duplicates(prints, order, wider)
    details = np.zeros(len(keys), np.uint16)
    some = np.flatnonzero(duplicates.duplicate_of >= 0)
    details[some] = detail_distance(
        prints.details[some], prints.details[duplicates.duplicate_of[some]]
    )
    return duplicates.duplicate_of.astype(np.int32), duplicates.bits.astype(np.uint16), details


def _ordered_clusters(features: Features, scores: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the cluster of each image; cluster 0 has the highest mean outlier score."""
    wanted = max(1, min(_MAX_CLUSTERS, round(len(features) ** 0.5)))
    clusters = find_clusters(features, wanted)
    known = np.nan_to_num(scores.astype(np.float64))
    means = np.bincount(clusters, known) / np.maximum(np.bincount(clusters), 1)
    rank = np.empty(len(means), np.uint16)
    rank[np.argsort(-means, kind="stable")] = np.arange(len(means))
    return rank[clusters]

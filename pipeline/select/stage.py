"""Select: what to keep of the originals, judged on recorded facts alone.

A pure function of the records, the manifest, the recipe and what was asked to be forgotten: no
image is opened, nothing is changed, so another threshold is another run of a few seconds. (The
features for `off_topic`, if that is asked for, are recorded first where there are none.) Every
rejected image is named in `rejected.jsonl` with its reason.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord, atomic_file
from pipeline.crawl.manifest_lookup import ManifestLookup
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.limits import limit_decoding
from pipeline.options import SelectOptions
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.select.duplicates import (
    DETAIL_WORDS,
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    exact_duplicates,
    hash_words,
    near_duplicates,
)
from pipeline.select.features import Keys, outlier_scores, record_features
from pipeline.select.selection import SelectedImage
from pipeline.web.failures import caught_failure

_REPORT_EVERY = 5000


@dataclass(frozen=True)
class SelectResult:
    """How many images were kept, and how many rejected for each reason."""

    kept: int
    rejected: dict[str, int]


def _license(image: SelectedImage, limits: SelectOptions) -> str | None:
    words = image.row.license.casefold()
    if limits.licenses and not any(one.casefold() in words for one in limits.licenses):
        return repr(image.row.license)
    return None


def _labels(image: SelectedImage, limits: SelectOptions) -> str | None:
    labels = [label.casefold() for label in image.row.labels]
    wanted = [word.casefold() for word in limits.labels]
    if wanted and not any(word in label for word in wanted for label in labels):
        return repr(list(image.row.labels))
    return None


def _mode(image: SelectedImage, limits: SelectOptions) -> str | None:
    if limits.modes and image.record.mode not in limits.modes:
        return image.record.mode
    return None


def _small(image: SelectedImage, limits: SelectOptions) -> str | None:
    side = min(image.record.width, image.record.height)
    return f"{side} < {limits.min_side}" if side < limits.min_side else None


def _elongated(image: SelectedImage, limits: SelectOptions) -> str | None:
    aspect = aspect_of(image.record)
    return f"{aspect:.3g} > {limits.max_aspect:g}" if aspect > limits.max_aspect else None


def _blurred(image: SelectedImage, limits: SelectOptions) -> str | None:
    blur = image.record.sharpness
    return f"{blur:.4g} < {limits.min_sharpness:g}" if blur < limits.min_sharpness else None


def _uniform(image: SelectedImage, limits: SelectOptions) -> str | None:
    spread = image.record.contrast
    return f"{spread:.4g} < {limits.min_contrast:g}" if spread < limits.min_contrast else None


RULES: dict[str, Callable[[SelectedImage, SelectOptions], str | None]] = {
    "license": _license,
    "label": _labels,
    "mode": _mode,
    "small": _small,
    "elongated": _elongated,
    "blurred": _blurred,
    "uniform": _uniform,
}
"""By reason, in the order they are asked: what is wrong with an image, or None."""

FORGOTTEN, NOT_IN_MANIFEST = "forgotten", "not_in_manifest"
NO_CLASS_LABEL, DUPLICATE_KEY = "no_class_label", "duplicate_key"
OFF_TOPIC, DUPLICATE, NEAR_DUPLICATE = "off_topic", "duplicate", "near_duplicate"
INTERNAL = "internal"
REASONS = (
    FORGOTTEN,
    NOT_IN_MANIFEST,
    DUPLICATE_KEY,
    *RULES,
    NO_CLASS_LABEL,
    OFF_TOPIC,
    DUPLICATE,
    NEAR_DUPLICATE,
    INTERNAL,
)
"""All reasons. An image is rejected for the first one that applies."""


def aspect_of(record: OriginalRecord) -> float:
    """Long side over short side, 1 or more."""
    return max(record.width, record.height) / max(1, min(record.width, record.height))


def first_rejection(image: SelectedImage, recipe: Recipe) -> tuple[str, str] | None:
    """The first reason to reject an image for its own facts, and the detail; None to keep it."""
    for reason, rule in RULES.items():
        detail = rule(image, recipe.select)
        if detail is not None:
            return reason, detail
    position = recipe.shards.class_label
    if position is not None and len(image.row.labels) <= position:
        return NO_CLASS_LABEL, f"no label number {position} in {list(image.row.labels)}"
    return None


@dataclass(frozen=True)
class Lists:
    """Where select writes the images that it keeps and those that it rejects."""

    kept: Path
    rejected: Path


def select(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, lists: Lists | None = None
) -> SelectResult:
    """Judge every image of the complete parts; write `kept.jsonl` and `rejected.jsonl`.

    Needs about 260 bytes of memory an image, and a passing copy of the lists on disk.

    Args:
        lists: written instead of the dataset's own.

    Raises:
        UserError: a line of the manifest or of a journal that is damaged.
    """
    lists = lists or Lists(dataset.selection, dataset.rejections)
    limit_decoding(recipe.originals.decode_megabytes)
    dataset.manifest_dir.mkdir(parents=True, exist_ok=True)
    if recipe.select.off_topic is not None:
        record_features(dataset, recipe.select.features, log)
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile(dir=dataset.manifest_dir))
        rows = stack.enter_context(ManifestLookup(dataset.url_manifest))
        facts = _DedupIndex()
        for image, verdict in _judged(recipe, dataset, rows, log):
            facts.add(image, verdict and verdict[0])
            line = image.to_line() if verdict is None else _rejected(image.to_json(), *verdict)
            spool.write(line)
        log.progress("select", len(facts), len(facts), "images")
        limits = recipe.select
        near = duplicate_thresholds(limits)
        if near is not None and facts.without_detail:
            log.emit("select", "without_detail", images=facts.without_detail)
        verdicts = facts.find_duplicates(near, limits.off_topic, outlier_scorer(dataset, limits))
        # The kept list last: what is sharded is then never newer than its list of rejections.
        kept = stack.enter_context(atomic_file(lists.kept))
        rejected = stack.enter_context(atomic_file(lists.rejected))
        spool.seek(0)
        counts = _write_lists(spool, facts, verdicts, kept, rejected)
    return SelectResult(counts.pop("kept", 0), dict(sorted(counts.items())))


def duplicate_thresholds(limits: SelectOptions) -> DuplicateThresholds | None:
    """When two images are near duplicates; None where they are not looked for."""
    if limits.near_duplicate_bits == "off":
        return None
    return DuplicateThresholds(limits.near_duplicate_bits, limits.near_duplicate_detail)


def outlier_scorer(
    dataset: DatasetPaths, limits: SelectOptions
) -> Callable[[Keys], NDArray[np.float32]] | None:
    """How strange the images with these keys are; None where that is not asked."""
    if limits.off_topic is None:
        return None
    return partial(outlier_scores, dataset, limits.features)


def _judged(
    recipe: Recipe, dataset: DatasetPaths, rows: ManifestLookup, log: EventLog
) -> Iterator[tuple[SelectedImage, tuple[str, str] | None]]:
    forgotten = read_forgotten(dataset).keys
    for number, record in enumerate(read_records(dataset)):
        if number % _REPORT_EVERY == 0:
            log.progress("select", number, None, "images")
        row = rows.get(record.key)
        image = SelectedImage(record, row or ManifestRow(record.key, ""))
        if record.key in forgotten:
            yield image, (FORGOTTEN, "as asked")
        elif row is None:
            yield image, (NOT_IN_MANIFEST, "not in the manifest")
        else:
            try:
                verdict = first_rejection(image, recipe)
            except Exception as error:  # noqa: BLE001 the boundary of one image
                log.log_failure(caught_failure("select", row.url, error, record.key))
                verdict = INTERNAL, f"{type(error).__name__}: {error}"
            yield image, verdict


def _rejected(image: dict[str, Any], reason: str, detail: str) -> bytes:
    line = {"key": image["key"], "url": image["url"], "part": image["part"],
            "reason": reason, "detail": detail}  # fmt: skip
    return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace")


class _DedupIndex:
    """What finding duplicates needs of every image, in flat arrays, in the order of the records."""

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
        """Images that were recorded without a detail hash: not looked at for near duplicates."""
        return len(self) - sum(self._detailed)

    def key(self, index: int) -> str:
        return f"{self._keys[index]:016x}"

    def reason(self, index: int) -> str | None:
        """Why an image was rejected for its own facts."""
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
        strange_by: Callable[[Keys], NDArray[np.float32]] | None,
    ) -> _DedupResult:
        """Find the repeated keys, what is off topic, and the duplicates, each among the images not
        rejected so far.

        The larger copy stays: more pixels, then more bytes, then the lower key.
        """
        keys = np.frombuffer(self._keys, np.uint64)
        sizes = [np.frombuffer(one, np.uint64) for one in (self._bytes, self._pixels)]
        count = len(keys)
        _, first = np.unique(keys, return_index=True)
        repeated = np.ones(count, bool)
        repeated[first] = False
        open_to = (np.frombuffer(self._reasons, np.int8) < 0) & ~repeated
        strange = np.full(count, np.nan, np.float32)
        if strange_by is not None and off_topic is not None and open_to.any():
            scores = strange_by(keys[open_to])
            strange[open_to] = np.where(scores > off_topic, scores, np.nan)
            open_to &= np.isnan(strange)
        order = np.lexsort((keys, *(~size for size in sizes)))
        order = order[open_to[order]]
        same = np.full(count, -1, np.int64)
        digests = np.frombuffer(self._digests, np.uint64).reshape(-1, 4)
        leader = exact_duplicates([one[order] for one in digests.T], np.arange(len(order)))
        same[order[leader >= 0]] = order[leader[leader >= 0]]
        found = np.full(count, -1, np.int64)
        bits = np.zeros(count, np.int16)
        details = np.frombuffer(self._details, np.uint64).reshape(-1, DETAIL_WORDS)
        if near is not None:
            order = order[leader < 0]
            order = order[np.frombuffer(self._detailed, np.int8)[order] > 0]
            duplicates = near_duplicates(
                PerceptualHashes(np.frombuffer(self._hashes, np.uint64), details), order, near
            )
            found, bits = duplicates.duplicate_of, duplicates.bits
        detail = np.zeros(count, np.int16)
        one = np.flatnonzero(found >= 0)
        detail[one] = detail_distance(details[one], details[found[one]])
        return _DedupResult(repeated, strange, same, found, bits, detail)


@dataclass(frozen=True)
class _DedupResult:
    """By image: whether its key came before, how strange it is (NaN if not off topic), what it is
    a copy of (-1 if none), what it is nearly one of, and by how many bits."""

    repeated: NDArray[np.bool_]
    strange: NDArray[np.float32]
    same: NDArray[np.int64]
    near: NDArray[np.int64]
    bits: NDArray[np.int16]
    detail: NDArray[np.int16]

    def of(self, index: int, facts: _DedupIndex) -> tuple[str, str] | None:
        if self.repeated[index]:
            return DUPLICATE_KEY, "the key came before"
        if not np.isnan(self.strange[index]):
            return OFF_TOPIC, f"{self.strange[index]:.2f} deviations from the rest"
        if self.same[index] >= 0:
            return DUPLICATE, facts.key(self.same[index])
        if self.near[index] >= 0:
            return NEAR_DUPLICATE, (
                f"{facts.key(self.near[index])} ({self.bits[index]} bits, "
                f"{self.detail[index]} of the detail)"
            )
        return None


def _write_lists(
    spool: Iterable[bytes], facts: _DedupIndex, verdicts: _DedupResult,
    kept: IO[bytes], rejected: IO[bytes],
) -> Counter[str]:  # fmt: skip
    """Send each spooled line to the list it belongs to; count both."""
    counts: Counter[str] = Counter()
    for index, line in enumerate(spool):
        reason = facts.reason(index)
        verdict = verdicts.of(index, facts)
        if reason is not None:
            rejected.write(line)
            counts[reason] += 1
        elif verdict is None:
            kept.write(line)
            counts["kept"] += 1
        else:
            rejected.write(_rejected(json.loads(line), *verdict))
            counts[verdict[0]] += 1
    return counts

"""The select stage: chooses originals by the properties recorded at download.

The result depends only on the records, the manifest, the recipe, the list of forgotten images and
the decisions of `curate`. No image is opened and nothing is deleted, so a run with another limit
takes seconds. (Missing features and values of filters are computed first if a limit needs them.)
Every rejected image is listed with its reason in `rejected.jsonl`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, ManifestRow, atomic_file
from pipeline.crawl.manifest_lookup import ManifestLookup
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.limits import limit_decoding
from pipeline.options import SelectOptions
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.select.curation import Curation, Rejection, read_curation
from pipeline.select.dedup_index import DedupIndex, DedupResult
from pipeline.select.duplicates import (
    DuplicateThresholds,
)
from pipeline.select.feature_duplicates import FeatureDuplicates, feature_duplicates
from pipeline.select.features import Keys, record_features
from pipeline.select.filters import filter_limits, record_filter_values
from pipeline.select.outliers import outlier_scores
from pipeline.select.rules import (
    FORGOTTEN,
    INTERNAL,
    NOT_IN_MANIFEST,
    first_rejection,
)
from pipeline.select.selection import SelectedImage
from pipeline.web.failures import caught_failure

_REPORT_EVERY = 5000
_FEW_IMAGES = "copies may be missed; look at the pairs in select --preview, and raise the limit"


@dataclass(frozen=True)
class SelectResult:
    """The number of images kept, and of images rejected, by reason."""

    kept: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class Lists:
    """The files to which select writes the kept and the rejected images."""

    kept: Path
    rejected: Path


@contextmanager
def scratch_lists(dataset: DatasetPaths) -> Iterator[Lists]:
    """Yield lists for a trial, which are removed after the block. Removes those of killed runs."""
    dataset.data_dir.mkdir(parents=True, exist_ok=True)
    for left_over in dataset.data_dir.glob(".preview-*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=dataset.data_dir, prefix=".preview-") as folder:
        yield Lists(Path(folder, "kept.jsonl"), Path(folder, "rejected.jsonl"))


def select(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    lists: Lists | None = None,
    curation: Curation | None = None,
) -> SelectResult:
    """Check every image of the complete parts; write `kept.jsonl` and `rejected.jsonl`.

    Needs about 260 bytes of memory per image, and disk space for a temporary copy of the lists.

    Args:
        lists: files to write instead of the dataset's own.
        curation: decisions to obey instead of the recorded ones.

    Raises:
        UserError: a line of the manifest, of a journal or of the decisions is damaged.
    """
    lists = lists or Lists(dataset.selection, dataset.rejections)
    curation = read_curation(dataset) if curation is None else curation
    limit_decoding(recipe.originals.decode_megabytes)
    dataset.manifest_dir.mkdir(parents=True, exist_ok=True)
    if needs_features(recipe.select):
        record_features(dataset, recipe.select.features, log)
    record_filter_values(dataset, recipe.select, log)
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile(dir=dataset.manifest_dir))
        rows = stack.enter_context(ManifestLookup(dataset.url_manifest))
        images = DedupIndex()
        for image, rejection in _apply_rules(recipe, dataset, rows, log):
            images.add(image, rejection and rejection[0])
            left = curation.apply(image.key, rejection)
            spool.write(image.to_line() if left is None else _rejected(image.to_json(), *left))
        log.progress("select", len(images), len(images), "images")
        limits = recipe.select
        near = duplicate_thresholds(limits)
        if near is not None and images.without_detail:
            log.emit("select", "without_detail", images=images.without_detail)
        result = images.find_duplicates(
            near,
            limits.off_topic,
            outlier_scorer(dataset, limits),
            copy_finder(dataset, limits, log),
        )
        # `kept` is written last, so that the selection is never newer than its rejections.
        kept = stack.enter_context(atomic_file(lists.kept))
        rejected = stack.enter_context(atomic_file(lists.rejected))
        spool.seek(0)
        counts = _write_lists(spool, images, result, curation, kept, rejected)
    return SelectResult(counts.pop("kept", 0), dict(sorted(counts.items())))


def duplicate_thresholds(limits: SelectOptions) -> DuplicateThresholds | None:
    """Return the thresholds of near duplicates; None if they are not searched for."""
    if limits.near_duplicate_bits == "off":
        return None
    return DuplicateThresholds(limits.near_duplicate_bits, limits.near_duplicate_detail)


def outlier_scorer(
    dataset: DatasetPaths, limits: SelectOptions
) -> Callable[[Keys], NDArray[np.float32]] | None:
    """Return the function that scores outliers by key; None if `off_topic` is not set."""
    if limits.off_topic is None:
        return None
    return partial(outlier_scores, dataset, limits.features)


def needs_features(limits: SelectOptions) -> bool:
    """Whether a limit applies to the features of images."""
    return limits.off_topic is not None or limits.duplicate_distance is not None


def copy_finder(
    dataset: DatasetPaths, limits: SelectOptions, log: EventLog
) -> Callable[[Keys], FeatureDuplicates] | None:
    """Return the function that finds copies by their features, and says if there are too few images
    for it; None if `duplicate_distance` is not set."""
    limit = limits.duplicate_distance
    if limit is None:
        return None

    def find(keys: Keys) -> FeatureDuplicates:
        found = feature_duplicates(dataset, limits.features, keys, limit)
        if len(keys) > 1 and found.images <= found.dimensions:
            log.emit(
                "select", "duplicate_distance has few images to compare", images=found.images,
                needed=found.dimensions + 1, advice=_FEW_IMAGES,
            )  # fmt: skip
        return found

    return find


def _apply_rules(
    recipe: Recipe, dataset: DatasetPaths, rows: ManifestLookup, log: EventLog
) -> Iterator[tuple[SelectedImage, Rejection | None]]:
    """Yield each image and its rejection (reason and details); None if it passes all rules."""
    forgotten = read_forgotten(dataset).keys
    filters = filter_limits(dataset, recipe.select)
    for number, record in enumerate(read_records(dataset)):
        if number % _REPORT_EVERY == 0:
            log.progress("select", number, None, "images")
        row = rows.get(record.key)
        image = SelectedImage(record, row or ManifestRow(record.key, ""))
        if record.key in forgotten:
            yield image, (FORGOTTEN, "on request")
        elif row is None:
            yield image, (NOT_IN_MANIFEST, "not in the manifest")
        else:
            try:
                rejection = first_rejection(image, recipe, filters)
            except Exception as error:  # noqa: BLE001 errors of one image are caught here
                log.log_failure(caught_failure("select", row.url, error, record.key))
                rejection = INTERNAL, f"{type(error).__name__}: {error}"
            yield image, rejection


def _rejected(image: dict[str, Any], reason: str, detail: str) -> bytes:
    line = {"key": image["key"], "url": image["url"], "part": image["part"],
            "reason": reason, "detail": detail}  # fmt: skip
    return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace")


def _write_lists(
    spool: Iterable[bytes], images: DedupIndex, result: DedupResult, curation: Curation,
    kept: IO[bytes], rejected: IO[bytes],
) -> Counter[str]:  # fmt: skip
    """Write each spooled line to its list; count the kept images, and the rejected ones by
    reason."""
    counts: Counter[str] = Counter()
    for index, line in enumerate(spool):
        key, reason = images.key(index), images.reason(index)
        spooled = curation.apply(key, None if reason is None else (reason, ""))
        rejection = curation.apply(key, result.rejection(index, images))
        if spooled is not None:
            rejected.write(line)
            counts[spooled[0]] += 1
        elif rejection is None:
            kept.write(line)
            counts["kept"] += 1
        else:
            rejected.write(_rejected(json.loads(line), *rejection))
            counts[rejection[0]] += 1
    return counts

"""A page that helps to set the limits of select: it shows the images on both sides of each limit.

It is one self-contained HTML file, `manifests/NAME/preview.html`.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from pipeline.contract import DatasetPaths, OriginalRecord, write_atomic
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.markup import policy_element
from pipeline.options import SelectOptions
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.select.filters import filter_limits
from pipeline.select.numeric_limits import NUMERIC_LIMITS, histogram
from pipeline.select.preview_page import PAGE, THUMB, Section, Thumbnails
from pipeline.select.preview_pairs import feature_duplicate_section, near_duplicate_section
from pipeline.select.rules import (
    CURATED,
    DUPLICATE,
    FEATURE_DUPLICATE,
    NEAR_DUPLICATE,
    OFF_TOPIC,
    RULES,
)
from pipeline.select.selection import read_rejected, read_selection
from pipeline.select.stage import Lists, outlier_scorer, scratch_lists, select


def preview(recipe: Recipe, dataset: DatasetPaths, log: EventLog, most: int = 24) -> Path:
    """Apply the recipe's limits and write the page; the selection does not change.

    Args:
        most: maximum number of images on each side of a limit.

    Returns:
        The path of the page.
    """
    with scratch_lists(dataset) as lists:
        result = select(recipe, dataset, log, lists)
        counts = Counter(result.rejected)
        thumbnails = Thumbnails(dataset, log)
        sections = [
            *_numeric_sections(recipe.select, dataset, counts, most, thumbnails),
            *_outlier_section(recipe.select, dataset, lists, counts, most, thumbnails),
            *near_duplicate_section(recipe.select, lists, counts, most, thumbnails),
            *feature_duplicate_section(recipe.select, dataset, lists, counts, most, thumbnails),
            *_other_sections(lists, counts, most, thumbnails),
        ]
    page = Environment(autoescape=True).from_string(PAGE)
    path = dataset.manifest_dir / "preview.html"
    write_atomic(
        path,
        page.render(
            name=dataset.name,
            kept=result.kept,
            sections=sections,
            thumb=THUMB,
            policy=Markup(policy_element()),
        ),
    )
    return path


@dataclass
class _Closest:
    """The images closest to a limit on one side."""

    most: int
    heap: list[tuple[float, str, float, OriginalRecord]] = field(default_factory=list)

    def add(self, distance: float, value: float, record: OriginalRecord) -> None:
        entry = (-distance, record.key, value, record)
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, entry)
        elif entry[:2] > self.heap[0][:2]:
            heapq.heapreplace(self.heap, entry)

    def __iter__(self) -> Iterator[tuple[float, OriginalRecord]]:
        return ((value, record) for _, _, value, record in sorted(self.heap, reverse=True))


def _numeric_sections(
    limits: SelectOptions,
    dataset: DatasetPaths,
    counts: Counter[str],
    most: int,
    thumbnails: Thumbnails,
) -> Iterator[Section]:
    """Yield a section for each numeric limit, with one pass over the records."""
    measures = (*NUMERIC_LIMITS, *filter_limits(dataset, limits))
    sides = {(m.reason, passes): _Closest(most) for m in measures for passes in (False, True)}
    values = {measure.reason: array("d") for measure in measures}
    forgotten = read_forgotten(dataset).keys
    for record in read_records(dataset):
        if record.key in forgotten:
            continue
        for measure in measures:
            value, limit = measure.value(record), measure.limit(limits)
            if math.isnan(value):  # a filter has no value of a damaged image
                continue
            values[measure.reason].append(value)
            side = sides[measure.reason, measure.passes(value, limit)]
            side.add(abs(value - limit), value, record)
    for measure in measures:
        limit = measure.limit(limits)
        below, above = (
            [
                thumbnails.show(record, f"{value:.4g}, {record.width} × {record.height}")
                for value, record in sides[measure.reason, passes]
            ]
            for passes in (False, True)
        )
        bars, scale = histogram(values[measure.reason], limit, measure)
        yield Section(
            measure.reason, f"{measure.option} = {limit:g}", counts[measure.reason], below, above,
            bars, scale,
        )  # fmt: skip


def _outlier_section(
    limits: SelectOptions,
    dataset: DatasetPaths,
    lists: Lists,
    counts: Counter[str],
    most: int,
    thumbnails: Thumbnails,
) -> Iterator[Section]:
    """Yield a section with the rejected images of the lowest and the kept ones of the highest
    outlier scores."""
    scorer = outlier_scorer(dataset, limits)
    if scorer is None:
        return
    is_outlier = {image.key: False for image in read_selection(lists.kept)}
    for line in read_rejected(lists.rejected):
        if line["reason"] in (OFF_TOPIC, DUPLICATE, NEAR_DUPLICATE, FEATURE_DUPLICATE):
            is_outlier[line["key"]] = line["reason"] == OFF_TOPIC
    scores = scorer(np.array([int(key, 16) for key in is_outlier], np.uint64)).tolist()
    sides = [
        heapq.nsmallest(
            most,
            (
                (abs(score - float(limits.off_topic or 0)), score, key)
                for score, (key, rejected) in zip(scores, is_outlier.items(), strict=True)
                if rejected == wanted and not math.isnan(score)
            ),
        )
        for wanted in (True, False)
    ]
    records = thumbnails.find({key for side in sides for *_, key in side})
    below, above = (
        [thumbnails.show(records[key], f"{score:.2f} deviations") for _, score, key in side]
        for side in sides
    )
    yield Section(OFF_TOPIC, f"off_topic = {limits.off_topic:g}", counts[OFF_TOPIC], below, above)


def _other_sections(
    lists: Lists, counts: Counter[str], most: int, thumbnails: Thumbnails
) -> Iterator[Section]:
    """Yield a section for each reason without a numeric limit: some images, with the details."""
    reasons = [one for one in (*RULES, CURATED, DUPLICATE) if one in counts]
    picked: dict[str, dict[str, str]] = {reason: {} for reason in reasons}
    for line in read_rejected(lists.rejected):
        some = picked.get(line["reason"])
        if some is not None and len(some) < most:
            some[line["key"]] = line["detail"]
    records = thumbnails.find({key for some in picked.values() for key in some})
    for reason in reasons:
        shown = [thumbnails.show(records[key], detail) for key, detail in picked[reason].items()]
        yield Section(reason, "", counts[reason], shown, [])

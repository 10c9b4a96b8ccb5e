"""A page to set select's limits by looking: the images on both sides of each limit.

One HTML file, `manifests/NAME/preview.html`, with everything in it.
"""

from __future__ import annotations

import base64
import heapq
import io
import math
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from pipeline.contract import DatasetPaths, OriginalRecord, write_atomic
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.markup import policy_element
from pipeline.options import SelectOptions
from pipeline.originals.parts import read_original, read_records
from pipeline.recipe import Recipe
from pipeline.select.duplicates import (
    DETAIL_WORDS,
    DuplicateThresholds,
    PerceptualHashes,
    detail_distance,
    hash_words,
    near_duplicates,
)
from pipeline.select.selection import read_rejected, read_selection
from pipeline.select.stage import (
    DUPLICATE,
    NEAR_DUPLICATE,
    NO_CLASS_LABEL,
    OFF_TOPIC,
    RULES,
    Lists,
    aspect_of,
    duplicate_thresholds,
    outlier_scorer,
    select,
)
from pipeline.web.failures import caught_failure

_THUMB = 140
_BARS = 60
_PAIR_MARGIN = DuplicateThresholds(bits=4, detail=24)
"""Kept pairs are shown up to this many bits beyond the limits of near duplicates."""


@dataclass(frozen=True)
class NumericLimit:
    """A fact with a limit: `value` of an image must be at least (`least`) or at most the limit."""

    reason: str
    option: str
    value: Callable[[OriginalRecord], float]
    least: bool

    def limit(self, limits: SelectOptions) -> float:
        return float(getattr(limits, self.option))

    def passes(self, value: float, limit: float) -> bool:
        return value >= limit if self.least else value <= limit


NUMERIC_LIMITS = (
    NumericLimit("small", "min_side", lambda record: min(record.width, record.height), least=True),
    NumericLimit("elongated", "max_aspect", aspect_of, least=False),
    NumericLimit("blurred", "min_sharpness", lambda record: record.sharpness, least=True),
    NumericLimit("uniform", "min_contrast", lambda record: record.contrast, least=True),
)


@dataclass(frozen=True)
class Thumbnail:
    """An image on the page: its picture as a data URL (or none) and what is said of it."""

    key: str
    caption: str
    picture: str


@dataclass(frozen=True)
class Section:
    """One reason: its limit, how many fall to it, and images on both sides of the limit."""

    reason: str
    limit: str
    count: int
    rejected: list[Thumbnail]
    kept: list[Thumbnail]
    bars: list[tuple[float, float, bool]] = field(default_factory=list)
    scale: str = ""


def preview(recipe: Recipe, dataset: DatasetPaths, log: EventLog, most: int = 24) -> Path:
    """Judge by the recipe's limits, and write the page. The selection stays as it is.

    Args:
        most: images on each side of a limit.

    Returns:
        the page's path.
    """
    dataset.data_dir.mkdir(parents=True, exist_ok=True)
    for left_over in dataset.data_dir.glob(".preview-*"):
        shutil.rmtree(left_over)
    with TemporaryDirectory(dir=dataset.data_dir, prefix=".preview-") as folder:
        lists = Lists(Path(folder, "kept.jsonl"), Path(folder, "rejected.jsonl"))
        result = select(recipe, dataset, log, lists)
        counts = Counter(result.rejected)
        pictures = _Thumbnails(dataset, log)
        sections = [
            *_measured(recipe.select, dataset, counts, most, pictures),
            *_off_topic(recipe.select, dataset, lists, counts, most, pictures),
            *_near(recipe.select, lists, counts, most, pictures),
            *_others(lists, counts, most, pictures),
        ]
    page = Environment(autoescape=True).from_string(_PAGE)
    path = dataset.manifest_dir / "preview.html"
    write_atomic(
        path,
        page.render(
            name=dataset.name,
            kept=result.kept,
            sections=sections,
            thumb=_THUMB,
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


def _measured(
    limits: SelectOptions,
    dataset: DatasetPaths,
    counts: Counter[str],
    most: int,
    pictures: _Thumbnails,
) -> Iterator[Section]:
    """A section for each measure, by one pass over the records."""
    sides = {(m.reason, passes): _Closest(most) for m in NUMERIC_LIMITS for passes in (False, True)}
    values = {measure.reason: array("d") for measure in NUMERIC_LIMITS}
    forgotten = read_forgotten(dataset).keys
    for record in read_records(dataset):
        if record.key in forgotten:
            continue
        for measure in NUMERIC_LIMITS:
            value, limit = measure.value(record), measure.limit(limits)
            values[measure.reason].append(value)
            side = sides[measure.reason, measure.passes(value, limit)]
            side.add(abs(value - limit), value, record)
    for measure in NUMERIC_LIMITS:
        limit = measure.limit(limits)
        below, above = (
            [
                pictures.show(record, f"{value:.4g}, {record.width} × {record.height}")
                for value, record in sides[measure.reason, passes]
            ]
            for passes in (False, True)
        )
        bars, scale = histogram(values[measure.reason], limit, measure)
        yield Section(
            measure.reason, f"{measure.option} = {limit:g}", counts[measure.reason], below, above,
            bars, scale,
        )  # fmt: skip


def histogram(
    values: Sequence[float], limit: float, measure: NumericLimit
) -> tuple[list[tuple[float, float, bool]], str]:
    """Bars (left, height, passes) from 0 to 1 on a log scale, and the text of the axis."""
    if not values:
        return [], ""
    logs = np.log1p(np.asarray(values))
    low, high = float(logs.min()), float(logs.max()) + 1e-9
    counts, edges = np.histogram(logs, bins=_BARS, range=(low, high))
    middles = np.expm1((edges[:-1] + edges[1:]) / 2)
    bars = [
        (place / _BARS, float(count / counts.max()), measure.passes(float(middle), limit))
        for place, (count, middle) in enumerate(zip(counts, middles, strict=True))
    ]
    return bars, f"{math.expm1(low):.4g} to {math.expm1(high):.4g}"


def _off_topic(
    limits: SelectOptions,
    dataset: DatasetPaths,
    lists: Lists,
    counts: Counter[str],
    most: int,
    pictures: _Thumbnails,
) -> Iterator[Section]:
    """The least strange images that go, and the strangest that stay."""
    strange = outlier_scorer(dataset, limits)
    if strange is None:
        return
    judged = {image.key: False for image in read_selection(lists.kept)}
    for line in read_rejected(lists.rejected):
        if line["reason"] in (OFF_TOPIC, DUPLICATE, NEAR_DUPLICATE):
            judged[line["key"]] = line["reason"] == OFF_TOPIC
    scores = strange(np.array([int(key, 16) for key in judged], np.uint64)).tolist()
    sides = [
        heapq.nsmallest(
            most,
            (
                (abs(score - float(limits.off_topic or 0)), score, key)
                for score, (key, gone) in zip(scores, judged.items(), strict=True)
                if gone == goes and not math.isnan(score)
            ),
        )
        for goes in (True, False)
    ]
    records = pictures.find({key for side in sides for *_, key in side})
    below, above = (
        [pictures.show(records[key], f"{score:.2f} deviations") for _, score, key in side]
        for side in sides
    )
    yield Section(OFF_TOPIC, f"off_topic = {limits.off_topic:g}", counts[OFF_TOPIC], below, above)


def _near(
    limits: SelectOptions, lists: Lists, counts: Counter[str], most: int, pictures: _Thumbnails
) -> Iterator[Section]:
    """The pairs that were hardly near enough, and those hardly far enough."""
    near = duplicate_thresholds(limits)
    if near is None:
        return
    rejected = [pair for _, *pair in heapq.nlargest(most, _rejected_pairs(lists))]
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
    records = pictures.find({key for _, *pair in (*rejected, *kept) for key in pair})
    below, above = (
        [
            pictures.show(records[key], f"{how}: {which}")
            for how, one, other in pairs
            for key, which in ((one, "this one"), (other, "duplicate of"))
            if key in records
        ]
        for pairs in (rejected, kept)
    )
    yield Section(
        NEAR_DUPLICATE, f"near_duplicate_bits = {near.bits}, near_duplicate_detail = {near.detail}",
        counts[NEAR_DUPLICATE], below, above,
    )  # fmt: skip


def _rejected_pairs(lists: Lists) -> Iterator[tuple[int, str, str, str]]:
    """How far apart in detail a rejected pair is, that in words, and the two keys."""
    for line in read_rejected(lists.rejected):
        if line["reason"] == NEAR_DUPLICATE:
            other, _, how = line["detail"].rstrip(")").partition(" (")
            yield int(how.split()[2]), how, line["key"], other


def _others(
    lists: Lists, counts: Counter[str], most: int, pictures: _Thumbnails
) -> Iterator[Section]:
    """The reasons without a scale: some images of each, with the detail."""
    shown_above = {measure.reason for measure in NUMERIC_LIMITS} | {NEAR_DUPLICATE}
    reasons = [
        one
        for one in (*RULES, NO_CLASS_LABEL, DUPLICATE)
        if one in counts and one not in shown_above
    ]
    picked: dict[str, dict[str, str]] = {reason: {} for reason in reasons}
    for line in read_rejected(lists.rejected):
        some = picked.get(line["reason"])
        if some is not None and len(some) < most:
            some[line["key"]] = line["detail"]
    records = pictures.find({key for some in picked.values() for key in some})
    for reason in reasons:
        shown = [pictures.show(records[key], detail) for key, detail in picked[reason].items()]
        yield Section(reason, "", counts[reason], shown, [])


class _Thumbnails:
    """Small pictures of originals; none where the bytes are gone."""

    def __init__(self, dataset: DatasetPaths, log: EventLog) -> None:
        self._dataset = dataset
        self._log = log

    def find(self, keys: set[str]) -> dict[str, OriginalRecord]:
        return {one.key: one for one in read_records(self._dataset) if one.key in keys}

    def show(self, record: OriginalRecord, caption: str) -> Thumbnail:
        return Thumbnail(record.key, caption, self._data_url(record))

    def _data_url(self, record: OriginalRecord) -> str:
        try:
            data = read_original(self._dataset, record)
            limits = ImageLimits.of_size(record.width, record.height)
            with decoded(data, limits, _THUMB) as picture:
                image = picture.image.convert("RGB")
                image.thumbnail((_THUMB, _THUMB), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=80)
        except (UserError, ImageError):
            return ""
        except Exception as error:  # noqa: BLE001 the boundary of one image
            name = f"{record.part}/{record.member}"
            self._log.log_failure(caught_failure("select", name, error, record.key))
            return ""
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}: select</title>
{{ policy }}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
.sides.one { grid-template-columns: 1fr; gap: 0; }
@media (max-width: 40rem) { .sides { grid-template-columns: 1fr; gap: 0; } }
.images { display: flex; flex-wrap: wrap; gap: 8px; }
figure { margin: 0; width: {{ thumb }}px; }
figure img { max-width: 100%; display: block; }
figcaption { font-size: 11px; overflow-wrap: anywhere; }
svg { width: 100%; height: 60px; } .in { fill: #2a7d4f; } .out { fill: #b3402a; }
code { font-size: 1em; }
</style></head><body>
<h1>{{ name }}</h1>
<p>{{ "{:,}".format(kept) }} images would be kept. Each section shows the images next
to a limit: first those it rejects, then those it lets pass. The limits are in the recipe's
<code>[select]</code> table.</p>
{% for section in sections %}
<section id="{{ section.reason }}">
<h2>{{ section.reason }}</h2>
<p>{% if section.limit %}<code>{{ section.limit }}</code>: {% endif %}
{{ "{:,}".format(section.count) }} rejected for this reason first.</p>
{% if section.bars %}<svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img"
 aria-label="histogram">
{% for left, height, passes in section.bars %}
<rect class="{{ 'in' if passes else 'out' }}" x="{{ left }}" y="{{ 1 - height }}"
 width="{{ 0.9 / section.bars | length }}" height="{{ height }}"/>{% endfor %}
</svg><p>{{ section.scale }}, log scale</p>{% endif %}
<div class="sides{{ '' if section.rejected and section.kept else ' one' }}">
{% for title, side in (("rejected", section.rejected), ("passed", section.kept)) %}
<div><h3>{{ title }}</h3><div class="images">
{% for image in side %}<figure>
{% if image.picture %}<img src="{{ image.picture }}" alt="">{% endif %}
<figcaption>{{ image.caption }}<br><code>{{ image.key }}</code></figcaption></figure>
{% else %}<p>none</p>{% endfor %}
</div></div>{% endfor %}
</div></section>
{% endfor %}
</body></html>
"""

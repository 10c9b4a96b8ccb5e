"""Where a dataset stands, read from its files: no server, no lock, while others work on it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pipeline.console import human_bytes, human_time
from pipeline.contract import Dataset, UserError, load_index, read_jsonl
from pipeline.dataset.originals import PartFiles, is_complete, planned_parts, read_journal
from pipeline.events import Progress
from pipeline.stages.retry import outstanding


@dataclass(frozen=True)
class Status:
    """Counts of every stage, from the files alone.

    `pages` by state of the crawl's journal; `failed` are outstanding failures by kind; `bytes` of
    the images; `rate` in images a second over the open parts, None where nothing is under way.
    """

    name: str
    pages: dict[str, int] = field(default_factory=dict)
    urls: int = 0
    images: int = 0
    tried: int = 0
    bytes: int = 0
    rate: float | None = None
    failed: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    samples: int = 0
    shard_bytes: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Until every URL was tried, at the rate so far."""
        return max(0, self.urls - self.tried) / self.rate if self.rate else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds_left": self.seconds_left}

    def progress(self) -> list[Progress]:
        """The status as progress reports of crawl and download, for a console that watches."""
        reports = []
        pages = sum(self.pages.values())
        if pages:
            done = pages - self.pages.get("new", 0)
            reports.append(Progress("crawl", done, pages, "pages"))
        if self.tried:
            reports.append(
                Progress("download", self.tried, self.urls, "images", self.bytes, self.failed)
            )
        return reports


def survey(dataset: Dataset) -> Status:
    """Read where `dataset` stands; a dataset that is not there yet has all counts at zero."""
    images = tried = nbytes = 0
    begun: list[str] = []
    under_way = 0
    for part in planned_parts(dataset):
        if is_complete(dataset, part):
            record = json.loads(PartFiles(dataset, part).record.read_text())
            images += record["nsamples"]
            tried += record["nsamples"] + sum(record["failed"].values())
            nbytes += record["image_bytes"]
            continue
        for row in read_journal(dataset, part):
            tried += 1
            under_way += 1
            begun.append(row["ts"])
            if row["ok"]:
                images += 1
                nbytes += row["bytes"]
    rejected = Counter(row["reason"] for row in read_jsonl(dataset.rejected))
    shards, samples, shard_bytes = _shards(dataset)
    return Status(
        name=dataset.name,
        pages=_pages(dataset),
        urls=sum(1 for _ in read_jsonl(dataset.urls)),
        images=images,
        tried=tried,
        bytes=nbytes,
        rate=_rate(begun),
        failed=dict(Counter(row["kind"] for row in outstanding(dataset).values())),
        kept=sum(1 for _ in read_jsonl(dataset.kept)),
        rejected=dict(rejected),
        shards=shards,
        samples=samples,
        shard_bytes=shard_bytes,
    )


def _pages(dataset: Dataset) -> dict[str, int]:
    if not dataset.crawl_journal.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"{dataset.crawl_journal.as_uri()}?mode=ro", uri=True)) as db:
            return dict(db.execute("SELECT state, count(*) FROM pages GROUP BY state"))
    except sqlite3.OperationalError:  # being made, or busy
        return {}


def _shards(dataset: Dataset) -> tuple[int, int, int]:
    try:
        index, _ = load_index(dataset.index)
    except UserError:
        return 0, 0, 0
    return len(index.shardlist), index.nsamples, sum(entry.bytes for entry in index.shardlist)


def _rate(times: list[str]) -> float | None:
    """Images a second between the first and the last of these times."""
    if len(times) < 2:
        return None
    first, last = (datetime.fromisoformat(time) for time in (min(times), max(times)))
    seconds = (last - first).total_seconds()
    return (len(times) - 1) / seconds if seconds else None


def describe(status: Status) -> str:
    """The status in one screen."""
    pages = ", ".join(f"{count:,} {state}" for state, count in sorted(status.pages.items()))
    lines = [
        f"dataset   {status.name}",
        f"pages     {pages or 'none yet'}",
        f"URLs      {status.urls:,}",
        f"images    {status.images:,} of {status.tried:,} tried, {human_bytes(status.bytes)}",
    ]
    if status.rate and status.seconds_left:
        left = human_time(status.seconds_left)
        lines.append(f"speed     {status.rate:.1f} images/s, {left} left")
    lines += [
        f"failed    {_by_name(status.failed)}",
        f"kept      {status.kept:,}",
        f"rejected  {_by_name(status.rejected)}",
        f"shards    {status.shards:,} with {status.samples:,} samples, "
        f"{human_bytes(status.shard_bytes)}",
    ]
    return "\n".join(lines)


def _by_name(counts: dict[str, int]) -> str:
    if not counts:
        return "none"
    names = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values()):,}: {names}"

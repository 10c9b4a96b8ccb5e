"""Reads the status of a dataset from its files, without a server or lock, also while other
processes work on it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, UserError, complete_lines, load_index
from pipeline.events import Progress, last_failures
from pipeline.originals.parts import PartFiles, is_complete, planned_parts, read_summary
from pipeline.outside_text import printable
from pipeline.reading import open_regular
from pipeline.units import count_of, format_bytes, format_duration
from pipeline.web.opt_out.signals import count_signals

_PAGE_STATES = {"new": "queued", "held": "fetched"}
"""Printed names of the page states in the database; other states are printed unchanged."""

_DAMAGE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""Exceptions that reading a damaged file can raise."""


@dataclass(frozen=True)
class Status:
    """Counts of every stage, read from the files.

    `pages` counts pages by state of the crawl; `urls` is the number of rows in the manifest;
    `images` were downloaded, with `bytes` in total; `attempted` were downloaded or failed. `failed`
    counts unresolved failures by kind, `opt_outs` those of the kind opt_out by signal, `retryable`
    those that `retry` attempts by default. `rate` is in images per second over the open parts, None
    if there are none. `damaged` lists files that could not be read, with the error.
    """

    name: str
    pages: dict[str, int] = field(default_factory=dict)
    urls: int = 0
    images: int = 0
    attempted: int = 0
    bytes: int = 0
    rate: float | None = None
    failed: dict[str, int] = field(default_factory=dict)
    opt_outs: dict[str, int] = field(default_factory=dict)
    retryable: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    samples: int = 0
    shard_bytes: int = 0
    damaged: tuple[str, ...] = ()
    failure_log: str = ""

    @property
    def seconds_left(self) -> float | None:
        """The seconds until every URL is attempted, at the current rate."""
        return max(0, self.urls - self.attempted) / self.rate if self.rate else None

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return {**values, "tried": values.pop("attempted"), "seconds_left": self.seconds_left}

    def progress(self) -> list[Progress]:
        """Return progress reports of crawl and download, for a console."""
        reports = []
        pages = sum(self.pages.values())
        if pages:
            done = pages - self.pages.get("new", 0)
            reports.append(Progress("crawl", done, pages, "pages"))
        if self.attempted:
            reports.append(
                Progress("download", self.attempted, self.urls, "images", self.bytes, self.failed)
            )
        return reports


def read_status(dataset: DatasetPaths) -> Status:
    """Read the status of `dataset`; all counts of a new dataset are zero.

    Damaged files are listed in the status and do not affect the counts from other files.
    """
    files = _Files()
    originals = _originals(files, dataset)
    failures = files.failures(dataset)
    kinds = Counter(str(row.get("kind")) for row in failures)
    not_downloaded = sum(row.get("stage") == "download" for row in failures)
    rejected = Counter(str(row.get("reason")) for row in files.rows(dataset.rejections))
    shards, samples, shard_bytes = files.shards(dataset)
    return Status(
        name=dataset.name,
        pages=files.pages(dataset),
        urls=sum(1 for _ in files.rows(dataset.url_manifest)),
        images=originals.images,
        attempted=originals.images + not_downloaded,
        bytes=originals.bytes,
        rate=_rate(originals.times),
        failed=dict(kinds),
        opt_outs=count_signals(failures),
        retryable=sum(bool(row.get("retryable")) for row in failures),
        kept=sum(1 for _ in files.rows(dataset.selection)),
        rejected=dict(rejected),
        shards=shards,
        samples=samples,
        shard_bytes=shard_bytes,
        damaged=tuple(files.damaged),
        failure_log=str(dataset.failure_log),
    )


@dataclass
class _Originals:
    images: int = 0
    bytes: int = 0
    times: list[str] = field(default_factory=list)


def _originals(files: _Files, dataset: DatasetPaths) -> _Originals:
    """Count the images of all parts, and collect the times of attempts in open parts."""
    found = _Originals()
    for part in planned_parts(dataset):
        paths = PartFiles(dataset, part)
        if is_complete(dataset, part):
            summary = files.summary(paths)
            found.images += summary.get("nsamples", 0)
            found.bytes += summary.get("image_bytes", 0)
            continue
        for row in files.rows(paths.journal):
            if isinstance(row.get("ts"), str):
                found.times.append(row["ts"])
            if row.get("ok"):
                found.images += 1
                found.bytes += row["bytes"] if isinstance(row.get("bytes"), int) else 0
    return found


class _Files:
    """Reads the files of a dataset; `damaged` collects the errors."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def _add_error(self, path: Path, what: str) -> None:
        self.damaged.append(printable(f"{path}: {what}"))

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the valid rows of a JSONL file; add an error for invalid lines."""
        bad: list[int] = []
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                for number, line in enumerate(complete_lines(file), start=1):
                    row = _row(line)
                    if row is not None:
                        yield row
                    elif line.strip():
                        bad.append(number)
        except FileNotFoundError:
            return
        except OSError as error:
            self._add_error(path, f"cannot be read ({error.strerror})")
        if bad:
            more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
            self._add_error(path, f"line {bad[0]:,}{more}: not a JSON object; remove it")

    def failures(self, dataset: DatasetPaths) -> list[dict[str, Any]]:
        """Return the unresolved failures."""
        return list(last_failures(self.rows(dataset.failure_log)).values())

    def summary(self, files: PartFiles) -> dict[str, Any]:
        """Return the summary of a complete part; empty if it cannot be read."""
        try:
            return read_summary(files)
        except OSError as error:
            self._add_error(files.summary, f"cannot be read ({error.strerror})")
        except UserError as error:
            self.damaged.append(str(error))
        return {}

    def pages(self, dataset: DatasetPaths) -> dict[str, int]:
        """Return the number of pages by state."""
        path = dataset.crawl_state
        if not path.is_file():
            if path.exists():
                self._add_error(path, "not a regular file; remove or replace it")
            return {}
        try:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as db:
                query = "SELECT state, count(*) FROM pages GROUP BY state"
                return {str(state): int(count) for state, count in db.execute(query)}
        except sqlite3.OperationalError:  # just created, or locked
            return {}
        except (sqlite3.Error, *_DAMAGE_ERRORS) as error:
            self._add_error(path, f"not a crawl state ({error})")
            return {}

    def shards(self, dataset: DatasetPaths) -> tuple[int, int, int]:
        """Return the number of shards, of samples and of bytes in the index."""
        if not dataset.shard_index.exists():
            return 0, 0, 0
        try:
            index, _ = load_index(dataset.shard_index)
            nbytes = sum(entry.bytes for entry in index.shardlist)
            return len(index.shardlist), index.nsamples, nbytes
        except (UserError, *_DAMAGE_ERRORS):
            self._add_error(dataset.shard_index, "not a shard index; run shard")
            return 0, 0, 0


def _row(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if it is not one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _rate(times: list[str]) -> float | None:
    """Return images per second between the first and the last of these times."""
    if len(times) < 2:
        return None
    try:
        first, last = (datetime.fromisoformat(time) for time in (min(times), max(times)))
        seconds = (last - first).total_seconds()
    except _DAMAGE_ERRORS:
        return None
    return (len(times) - 1) / seconds if seconds > 0 else None


def format_status(status: Status) -> str:
    """Format the status for a terminal."""
    lines = [
        ("dataset", status.name),
        ("pages", ", ".join(f"{n:,} {_PAGE_STATES.get(state, state)}"
                            for state, n in sorted(status.pages.items())) or "none yet"),
        ("URLs", f"{status.urls:,}"),
        ("images",
         f"{status.images:,} of {status.attempted:,} attempted, {format_bytes(status.bytes)}"),
    ]  # fmt: skip
    if status.rate and status.seconds_left:
        left = format_duration(status.seconds_left)
        lines.append(("speed", f"{status.rate:.1f} images/s, {left} left"))
    lines.append(("failed", _describe_failed(status)))
    if status.opt_outs:
        lines.append(("opt-outs", _by_name(status.opt_outs)))
    if internal := status.failed.get("internal"):
        errors = "error" if internal == 1 else "errors"
        where = f"the tracebacks are in {status.failure_log} (kind internal)"
        lines.append(("internal", f"{internal:,} {errors} of this program; {where}"))
    lines += [
        ("kept", f"{status.kept:,}"),
        ("rejected", _by_name(status.rejected)),
        ("shards", f"{status.shards:,} with {count_of(status.samples, 'sample')}, "
         f"{format_bytes(status.shard_bytes)}"),
    ]  # fmt: skip
    lines += [("damaged", what) for what in status.damaged]
    return "\n".join(f"{name:<9} {printable(words)}" for name, words in lines)


def _describe_failed(status: Status) -> str:
    if not status.failed:
        return "none"
    known = f"{status.retryable:,} retryable" if status.retryable else "none retryable"
    return f"{_by_name(status.failed)}; {known}"


def _by_name(counts: dict[str, int]) -> str:
    if not counts:
        return "none"
    names = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values()):,}: {names}"

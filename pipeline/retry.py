"""Trying again what the failure log holds.

The log alone says what is outstanding: the last line of a (stage, url) that is not `mended`. What
is mended goes into a new part, and the log says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from pipeline.contract import DatasetPaths, ManifestRow, image_key
from pipeline.crawl.stage import retry_pages
from pipeline.errors import UserError
from pipeline.events import EventLog, unresolved_failures
from pipeline.originals.download import STAGE, PartDownloader, download_parts, plan_parts
from pipeline.originals.part_planning import rows_for_keys
from pipeline.originals.parts import PART_SIZE, next_part, planned_parts, read_journal, write_plan
from pipeline.recipe import Recipe
from pipeline.web.failures import FAILURE_KINDS


@dataclass(frozen=True)
class RetryResult:
    """Failures tried again, and what became of them. `passed_over` counts by reason the outstanding
    failures that were not tried."""

    tried: int
    resolved: int
    still_failed: int
    passed_over: dict[str, int] = field(default_factory=dict, compare=False)


def filter_failures(
    rows: Iterable[dict[str, Any]],
    *,
    kinds: Iterable[str] = (),
    hosts: Iterable[str] = (),
    older_than: float | None = None,
    everything: bool = False,
    now: datetime | None = None,
) -> list[dict[str, Any]]:
    """The failures to try again.

    Args:
        rows: lines of the failure log.
        kinds: only these kinds, whether retryable or not; all retryable ones if empty.
        hosts: only these hosts, with or without the port.
        older_than: only failures of more than this many hours ago.
        everything: also what is not retryable by its kind.
        now: the time to reckon from.
    """
    wanted_kinds, wanted_hosts = set(kinds), {host.lower() for host in hosts}
    limit = None
    if older_than is not None:
        limit = _time_before(now or datetime.now(UTC), older_than)
    return [
        row
        for row in rows
        if (row["kind"] in wanted_kinds if wanted_kinds else everything or row["retryable"])
        and (not wanted_hosts or wanted_hosts & _host_names(row["url"]))
        and (limit is None or datetime.fromisoformat(row["ts"]) <= limit)
    ]


def _time_before(now: datetime, hours: float) -> datetime:
    """The time so many hours before `now`.

    Raises:
        UserError: `hours` is negative, or no number.
    """
    if not hours >= 0:  # so that nan is refused, too
        raise UserError(f"--older-than {hours}: give a number of hours, 0 or more")
    try:
        return now - timedelta(hours=hours)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _host_names(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        return {parts.netloc.lower(), (parts.hostname or "").lower()}
    except ValueError:
        return set()


def retry_failures(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    *,
    kinds: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    older_than: float | None = None,
    everything: bool = False,
    run: PartDownloader | None = None,
) -> RetryResult:
    """Try again what is outstanding and chosen (see `chosen`): pages and images.

    Args:
        run: completes the parts; in this process when None.

    Raises:
        UserError: a kind that is none.
    """
    _check_kinds(kinds)
    every = list(unresolved_failures(dataset).values())
    rows = filter_failures(
        every,
        kinds=kinds,
        hosts=hosts,
        older_than=older_than,
        everything=everything,
    )
    pages = [row for row in rows if row["stage"] == "crawl"]
    images = [row for row in rows if row["stage"] == STAGE]
    mended = _retry_pages(recipe, dataset, log, pages)
    if pages or images:
        # What mended pages led to, and what an earlier run left open.
        _complete(recipe, dataset, plan_parts(recipe, dataset), log, run)
    mended += _retry_images(recipe, dataset, log, images, run)
    tried = len(pages) + len(images)
    passed_over = _passed_over(every, [*pages, *images])
    return RetryResult(tried, mended, tried - mended, passed_over)


def _passed_over(every: list[dict[str, Any]], tried: list[dict[str, Any]]) -> dict[str, int]:
    """Why the other failures were not tried: by the kind of those that are not worth it, by the
    stage of those that a retry has no part in; the rest did not fit the command's options."""
    done = {(row["stage"], row["url"]) for row in tried}
    reasons: Counter[str] = Counter()
    for row in every:
        if (row["stage"], row["url"]) in done:
            continue
        if row["stage"] not in ("crawl", STAGE):
            reasons[f"of stage {row['stage']}"] += 1
        elif not row["retryable"]:
            reasons[row["kind"]] += 1
        else:
            reasons["other kind, host or age"] += 1
    return dict(reasons)


def _check_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in FAILURE_KINDS:
            raise UserError(f"kind {kind!r}: there are: {', '.join(sorted(FAILURE_KINDS))}")


def _retry_pages(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, rows: list[dict[str, Any]]
) -> int:
    if not rows:
        return 0
    return len(retry_pages(recipe, dataset, log, [row["url"] for row in rows]))


def _complete(
    recipe: Recipe,
    dataset: DatasetPaths,
    parts: list[str],
    log: EventLog,
    run: PartDownloader | None,
) -> None:
    if parts:
        (run or download_parts)(recipe, dataset, parts, log)


def _retry_images(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    rows: list[dict[str, Any]],
    run: PartDownloader | None,
) -> int:
    """Fetch the images into new parts."""
    if not rows:
        return 0
    by_key = {row["key"] or image_key(row["url"]): row for row in rows}
    wanted = set(by_key)
    # A kill can leave a line in the log for an image that was had after all, and a run that was
    # killed while it retried has had some of them.
    wanted -= downloaded_keys(dataset, wanted)
    parts = _plan_retry(dataset, sorted(wanted), by_key)
    _complete(recipe, dataset, parts, log, run)
    good = downloaded_keys(dataset, set(by_key))
    for key, row in by_key.items():
        if key in good:
            log.log_resolved(row)
    return len(good)


def _plan_retry(
    dataset: DatasetPaths, keys: list[str], by_key: dict[str, dict[str, Any]]
) -> list[str]:
    rows = rows_for_keys(dataset, set(keys))
    parts = []
    for start in range(0, len(keys), PART_SIZE):
        part = next_part(dataset)
        write_plan(
            dataset,
            part,
            [
                rows.get(key) or ManifestRow(key, by_key[key]["url"]).to_json()
                for key in keys[start : start + PART_SIZE]
            ],
        )
        parts.append(part)
    return parts


def downloaded_keys(dataset: DatasetPaths, keys: set[str]) -> set[str]:
    """Those of `keys` that a part holds as good."""
    return {
        row["key"]
        for part in planned_parts(dataset)
        for row in read_journal(dataset, part)
        if row["ok"] and row["key"] in keys
    }

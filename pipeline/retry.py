"""Retry the failures in the failure log.

A failure is unresolved if it is the last line of its (stage, url) and not `resolved`. Images that
are now downloaded go into a new part, and a line with the kind `resolved` is logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from pipeline.contract import DatasetPaths, ManifestRow, image_key
from pipeline.crawl.stage import retry_pages
from pipeline.errors import UserError
from pipeline.events import RENAMED_KINDS, EventLog, LoggedFailure, unresolved_failures
from pipeline.originals.download import STAGE, PartDownloader, download_parts
from pipeline.originals.part_planning import assign_parts, rows_for_keys
from pipeline.originals.parts import PART_SIZE, next_part, planned_parts, read_journal, write_plan
from pipeline.recipe import Recipe
from pipeline.suggestions import suggestion
from pipeline.web.failures import FAILURE_KINDS


@dataclass(frozen=True)
class RetryResult:
    """The outcome of a retry. `passed_over` counts the failures that were not retried, by
    reason."""

    tried: int
    resolved: int
    still_failed: int
    passed_over: dict[str, int] = field(default_factory=dict, compare=False)


def filter_failures(
    failures: Iterable[LoggedFailure],
    *,
    kinds: Iterable[str] = (),
    hosts: Iterable[str] = (),
    older_than: float | None = None,
    everything: bool = False,
    now: datetime | None = None,
) -> list[LoggedFailure]:
    """Return the failures to retry.

    Args:
        failures: unresolved failures.
        kinds: only these kinds, retryable or not; if empty, all retryable kinds.
        hosts: only these hosts, with or without the port.
        older_than: only failures older than this, in hours.
        everything: also failures whose kind is not retryable.
        now: the current time, for `older_than`.
    """
    wanted_kinds, wanted_hosts = set(kinds), {host.lower() for host in hosts}
    limit = None
    if older_than is not None:
        limit = _hours_before(now or datetime.now(UTC), older_than)
    return [
        failed
        for failed in failures
        if (failed.kind in wanted_kinds if wanted_kinds else everything or failed.retryable)
        and (not wanted_hosts or wanted_hosts & _host_names(failed.url))
        and (limit is None or datetime.fromisoformat(failed.ts) <= limit)
    ]


def _hours_before(now: datetime, hours: float) -> datetime:
    """Return the time `hours` before `now`.

    Raises:
        UserError: `hours` is negative or NaN.
    """
    if not hours >= 0:  # also true for NaN
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
    """Retry the unresolved failures that `filter_failures` returns: pages, then images.

    Args:
        run: downloads the parts; None: in this process.

    Raises:
        UserError: a kind is unknown.
    """
    kinds = tuple(RENAMED_KINDS.get(kind, kind) for kind in kinds)
    _check_kinds(kinds)
    every = list(unresolved_failures(dataset).values())
    chosen = filter_failures(
        every,
        kinds=kinds,
        hosts=hosts,
        older_than=older_than,
        everything=everything,
    )
    pages = [failed for failed in chosen if failed.stage == "crawl"]
    images = [failed for failed in chosen if failed.stage == STAGE]
    resolved = _retry_pages(recipe, dataset, log, pages)
    if pages or images:
        # Download the images of the resolved pages, and complete parts of an interrupted run.
        _download_parts(recipe, dataset, assign_parts(dataset), log, run)
    resolved += _retry_images(recipe, dataset, log, images, run)
    tried = len(pages) + len(images)
    passed_over = _passed_over(every, [*pages, *images])
    return RetryResult(tried, resolved, tried - resolved, passed_over)


def _passed_over(every: list[LoggedFailure], tried: list[LoggedFailure]) -> dict[str, int]:
    """Count the other failures by the reason why they were not retried: the kind if it is not
    retryable, the stage if `retry` does not handle it, or else that no option matched."""
    done = {(failed.stage, failed.url) for failed in tried}
    reasons: Counter[str] = Counter()
    for failed in every:
        if (failed.stage, failed.url) in done:
            continue
        if failed.stage not in ("crawl", STAGE):
            reasons[f"stage {failed.stage}"] += 1
        elif not failed.retryable:
            reasons[failed.kind] += 1
        else:
            reasons["other kind, host or age"] += 1
    return dict(reasons)


def _check_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in FAILURE_KINDS:
            known = ", ".join(sorted(FAILURE_KINDS))
            hint = suggestion(kind, FAILURE_KINDS)
            raise UserError(f"unknown failure kind {kind!r}; choose from {known}{hint}")


def _retry_pages(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, failures: list[LoggedFailure]
) -> int:
    if not failures:
        return 0
    return len(retry_pages(recipe, dataset, log, [failed.url for failed in failures]))


def _download_parts(
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
    failures: list[LoggedFailure],
    run: PartDownloader | None,
) -> int:
    """Fetch the images into new parts."""
    if not failures:
        return 0
    by_key = {failed.key or image_key(failed.url): failed for failed in failures}
    wanted = set(by_key)
    # After a kill, the log can list images as failed that were downloaded later, for example by an
    # interrupted retry.
    wanted -= downloaded_keys(dataset, wanted)
    parts = _plan_retry(dataset, sorted(wanted), by_key)
    _download_parts(recipe, dataset, parts, log, run)
    good = downloaded_keys(dataset, set(by_key))
    for key, failed in by_key.items():
        if key in good:
            log.log_resolved(failed)
    return len(good)


def _plan_retry(
    dataset: DatasetPaths, keys: list[str], by_key: dict[str, LoggedFailure]
) -> list[str]:
    rows = rows_for_keys(dataset, set(keys))
    parts = []
    for start in range(0, len(keys), PART_SIZE):
        part = next_part(dataset)
        write_plan(
            dataset,
            part,
            [
                rows.get(key) or ManifestRow(key, by_key[key].url).to_json()
                for key in keys[start : start + PART_SIZE]
            ],
        )
        parts.append(part)
    return parts


def downloaded_keys(dataset: DatasetPaths, keys: set[str]) -> set[str]:
    """Return those of `keys` whose images are downloaded."""
    return {
        row["key"]
        for part in planned_parts(dataset)
        for row in read_journal(dataset, part)
        if row["ok"] and row["key"] in keys
    }

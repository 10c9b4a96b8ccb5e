"""The crawl stage: visits the pages of a site and writes the URL manifest.

A few threads fetch pages. Results are written in the order in which the pages were found, so an
interrupted crawl yields the same manifest in the same order.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.contract import DatasetPaths, now_utc
from pipeline.crawl.page import STAGE, FetchedPage, PageReader
from pipeline.crawl.results import (
    CrawlAccount,
    CrawlResult,
    file_stamp,
    from_text,
    host_of,
    log_skipped,
    pages_to_follow,
    source_digest,
    to_text,
)
from pipeline.crawl.state import CrawlPage, CrawlState, is_chunk, open_crawl_state
from pipeline.errors import Failure, UserError
from pipeline.events import EventLog, unresolved_failures
from pipeline.fetcher import Fetcher
from pipeline.recipe import Recipe
from pipeline.sources import SOURCES, CorruptFile, Page, PageResult
from pipeline.sources.interface import MAX_LIMIT
from pipeline.web.failures import failure, internal_failure
from pipeline.web.host_headers import dropped_credentials
from pipeline.web.local_files import SCHEME, file_path
from pipeline.web.opt_out.signals import signal_texts
from pipeline.web.urls import dropped_users
from pipeline.web.waits import log_waits

MIN_THREADS = 4
"""Minimum number of threads, so that a slow host does not delay the others."""

_LOOKAHEAD = 64

_GONE = frozenset(("not_found", "gone"))


def crawl(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, *, refresh: bool = False
) -> CrawlResult:
    """Visit the queued pages and add their images to the manifest.

    A finished crawl does nothing unless `refresh` is set: then every page is requested again
    (unchanged pages return 304), new images are added, and vanished ones are marked in the state.
    If the source in the recipe has changed, all pages are fetched again in full.
    """
    with open_crawl_state(dataset) as state:
        crawling = _Crawl(recipe, dataset, log, state)
        crawling.begin(refresh)
        result = crawling.run()
        crawling.explain(result)
        return result


def retry_pages(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, urls: Iterable[str]
) -> set[str]:
    """Fetch failed pages again, and the pages they link to. Return those of `urls` that
    succeeded."""
    requested = set(urls)
    with open_crawl_state(dataset) as state:
        state.requeue(sorted(requested))
        _Crawl(recipe, dataset, log, state).run()
        pages = {url: state.page(url) for url in requested}
        return {url for url, page in pages.items() if page and page.state == "done"}


class _Crawl:
    def __init__(
        self, recipe: Recipe, dataset: DatasetPaths, log: EventLog, state: CrawlState
    ) -> None:
        self._recipe = recipe
        self._source = recipe.source
        self._adapter = SOURCES[recipe.source.kind]
        self._dataset = dataset
        self._log = log
        self._reader = PageReader(recipe, dataset.data_dir / "lists")
        self._account = CrawlAccount(recipe.source)
        self._state = state
        self._new = 0
        self._full = False
        self._show_after = 0.0

    def begin(self, refresh: bool) -> None:
        """Queue the pages of this run."""
        dropped_users.clear()
        caught_up = self._state.caught_up
        if any(asdict(caught_up).values()):
            self._log.emit(STAGE, "manifest read", **asdict(caught_up))
        digest, images = source_digest(self._source), self._state.images
        before = images.get("source")
        if before is not None and before != digest:
            self._log.emit(STAGE, "recipe changed", again="all pages")
            self._state.requeue_all(unconditionally=True)
        elif refresh and not images.get("refreshing"):  # a killed refresh continues
            self._state.requeue_all(unconditionally=False)
            images.put("refreshing", 1)
        start = self._adapter.start(self._source)
        self._state.add_pages(start)
        # Always retry failed start pages.
        self._state.requeue(one.url for one in start)
        images.put("source", digest)

    def run(self) -> CrawlResult:
        """Fetch pages and write their results until none is left or a limit is reached."""
        threads = max(MIN_THREADS, self._recipe.politeness.concurrency)
        with Fetcher(self._recipe.politeness, log_waits(self._log, STAGE)) as fetcher:
            pool = ThreadPoolExecutor(threads, thread_name_prefix="crawl")
            try:
                self._work(fetcher, pool, threads)
            finally:
                fetcher.stop()  # ends the waits of threads if this was interrupted
                pool.shutdown(cancel_futures=True)
        self._state.images.merge()
        self._state.images.put("refreshing", 0)
        if dropped := dropped_credentials(self._recipe.politeness):
            remedy = "set politeness.host_headers in the recipe for the hosts that need them"
            self._log.emit(STAGE, "passwords in links not used", links=dropped, remedy=remedy)
        self._report_progress(final=True)
        self._resolve_failures()
        revised = self._state.images.rewrite_changed_rows()
        if revised:
            self._log.emit(STAGE, "rows revised", rows=revised)
        counts = self._state.page_counts(self._source.max_pages)
        return CrawlResult(
            pages=counts.get("done", 0),
            urls=self._state.images.count(),
            new=self._new,
            failed=counts.get("failed", 0),
            vanished=self._state.images.vanished(),
        )

    def _resolve_failures(self) -> None:
        """Mark logged failures as resolved if their pages have been read since, or are gone.

        This compares the log with the state, so it also covers runs that were killed.
        """
        for (stage, url), failed in unresolved_failures(self._dataset).items():
            page = self._state.page(url) if stage == STAGE else None
            if page is not None and page.state in ("done", "gone"):
                self._log.log_resolved(failed)

    def _work(self, fetcher: Fetcher, pool: ThreadPoolExecutor, threads: int) -> None:
        in_flight: dict[Future[FetchedPage | Failure], CrawlPage] = {}
        while True:
            self._finish_heads()
            while not self._full and len(in_flight) < threads:
                page = self._next_page(in_flight.values())
                if page is None:
                    break
                in_flight[pool.submit(self._reader.visit, fetcher, page)] = page
                self._account.visited += 1
            if not in_flight:
                return
            for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                self._record_outcome(in_flight.pop(future), future.result())
            for file in fetcher.take_unread():
                self._log.emit(STAGE, "policy file not read", url=file.url, reason=file.reason)

    def _next_page(self, in_flight: Collection[CrawlPage]) -> CrawlPage | None:
        """Return the first queued page whose host is not busy, or None."""
        busy = Counter(host_of(page.request.url) for page in in_flight)
        ids = {page.id for page in in_flight}
        for page in self._state.waiting(_LOOKAHEAD + len(ids), self._source.max_pages):
            host = host_of(page.request.url)
            if page.id not in ids and busy[host] < self._recipe.politeness.concurrency:
                return page
        return None

    # called in the main thread

    def _record_outcome(self, page: CrawlPage, outcome: FetchedPage | Failure) -> None:
        if isinstance(outcome, FetchedPage):
            held = None if outcome.result is None else to_text(outcome.result)
            self._state.store_result(
                page.id, held, outcome.etag, outcome.last_modified, outcome.digest
            )
        elif page.fetched and outcome.kind in _GONE:
            self._log.emit(STAGE, "page vanished", url=page.request.url, kind=outcome.kind)
            self._state.mark_gone(page.id)
        else:
            self._fail(page, outcome)

    def _fail(self, page: CrawlPage, failed: Failure) -> None:
        self._log.log_failure(failed)
        self._account.fail(failed)
        opt_out = signal_texts(failed.detail) if failed.kind == "opt_out" else ()
        self._state.fail(page.id, opt_out)

    def _finish_heads(self) -> None:
        """Write all results that are next in order."""
        while not self._full:
            page = self._state.first_unfinished(self._source.max_pages)
            if page is None:
                return
            try:
                if not self._finish_head(page):
                    return
            except (UserError, OSError, sqlite3.Error):
                raise
            except Exception as error:  # noqa: BLE001 - errors of one page are caught here
                self._fail(page, internal_failure(STAGE, page.request.url, error))
            self._report_progress()

    def _finish_head(self, page: CrawlPage) -> bool:
        """Write the result of the first unfinished page. Return False if it is not fetched yet."""
        if page.request.url.startswith(SCHEME):
            self._account.visited += 1
            self._finish_file(page, file_path(page.request.url)[0])
        elif self._adapter.max_copy_bytes and is_chunk(page.request.url):
            self._finish_piece(page)
        elif page.state == "held" and page.result is None:
            self._finish(page, None)
        elif page.state == "held" and self._adapter.max_copy_bytes:
            path = self._reader.copy_path(page.request.url)
            self._finish_parsed(page, Page(page.request, path=path))
        elif page.state == "held":
            self._finish(page, from_text(page.result or ""))
        else:
            return False
        return True

    def _finish_file(self, page: CrawlPage, path: Path) -> None:
        stamp = file_stamp(path)
        if stamp is None and page.fetched and page.request.url.startswith(SCHEME):
            self._log.emit(STAGE, "page vanished", url=page.request.url, kind="not_found")
            self._state.mark_gone(page.id)
        elif stamp and stamp == page.digest and page.fetched:
            self._finish(page, None)
        elif self._finish_parsed(page, Page(page.request, path=path)) and not self._full:
            self._state.set_file_stamp(page.id, stamp)

    def _finish_piece(self, page: CrawlPage) -> None:
        """Read a chunk of a copied file. If the copy is missing, fetch the file again first."""
        path = self._reader.copy_path(page.request.url)
        if path.exists():
            self._finish_file(page, path)
        else:
            self._state.requeue_file(page.request.url)

    def _finish_parsed(self, page: CrawlPage, read: Page) -> bool:
        """Parse a file and write its images. Return False if it ended early."""
        result = self._reader.parse(read)
        if not isinstance(result, Failure):
            try:
                self._finish(page, result)
                return True
            except CorruptFile as error:
                result = failure(STAGE, page.request.url, "parse_error", detail=str(error))
        self._fail(page, result)
        return False

    def _finish(self, page: CrawlPage, result: PageResult | None) -> None:
        now = now_utc()
        if result is None:
            self._state.finish_unchanged(page.id, now)
            return
        gained, dropped = self._state.images.gained(), self._account.dropped
        follow = list(pages_to_follow(page, result.follow, self._source, gained, dropped))
        rows = (found.row(page.request.url, now) for found in result.images)
        new, self._full = self._state.finish(page.id, rows, follow, now, self._source.max_images)
        self._new += new
        self._account.add(page.request.url, result.skipped)
        log_skipped(self._log, page, result, follow)
        if bug := result.skipped.bug:  # some entries were not read: a retry may read them
            failed = failure(STAGE, page.request.url, "internal")
            self._fail(page, replace(failed, detail=bug))

    def explain(self, result: CrawlResult) -> None:
        """Log which links were not followed, and why nothing was found or requested."""
        counts = self._state.page_counts(MAX_LIMIT)
        waiting = counts.get("new", 0) + counts.get("held", 0)
        for event, fields in self._account.events(
            result.pages, result.failed, result.urls, waiting
        ):
            self._log.emit(STAGE, event, **fields)

    def _report_progress(self, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now < self._show_after:
            return
        counts = self._state.page_counts(self._source.max_pages)
        done = sum(counts.get(state, 0) for state in ("done", "failed", "gone"))
        self._log.progress(STAGE, done, sum(counts.values()), "pages")
        # Counting a long queue is slow: spend at most 2 % of the time on it.
        self._show_after = now + max(0.1, 50 * (time.monotonic() - now))

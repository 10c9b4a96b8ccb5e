"""Crawl: visit a site's pages, write the URL manifest.

Pages are fetched by a few threads and finished one after the other in the order they were found,
so that the manifest has the same rows in the same order however often the crawl was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from pipeline.contract import Dataset, image_key, now_utc
from pipeline.errors import Failure, UserError
from pipeline.events import EventLog
from pipeline.http import Copy, Fetcher
from pipeline.recipe import Recipe
from pipeline.sources import SOURCES, BrokenFile, Found, Page, PageRequest, PageResult
from pipeline.stages.crawl_journal import CrawlJournal, JournalPage, is_piece
from pipeline.web.failures import failure
from pipeline.web.local_files import SCHEME, file_path
from pipeline.web.opt_out.directives import meta_signals
from pipeline.web.opt_out.signals import Signal, describe

STAGE = "crawl"
MIN_THREADS = 4
"""So that one slow host does not hold up the others; each host has its own limit besides."""

_LOOKAHEAD = 64

_LIMITS = ("max_pages", "max_images")
_GONE = frozenset(("not_found", "gone"))


@dataclass(frozen=True)
class CrawlResult:
    """Where the crawl stands: `pages` had, `urls` in the manifest, `new` of them by this run,
    `failed` pages, and `vanished` images that are on none of the pages any more."""

    pages: int
    urls: int
    new: int
    failed: int
    vanished: int


@dataclass(frozen=True)
class _Fetched:
    """A fetched page; `result` is None where it has not changed."""

    result: PageResult | None
    etag: str | None = None
    last_modified: str | None = None
    digest: str | None = None


def crawl(recipe: Recipe, dataset: Dataset, log: EventLog, *, refresh: bool = False) -> CrawlResult:
    """Visit the pages that are still to visit and add their images to the manifest.

    A finished crawl does nothing unless `refresh`: then every page is asked for again (unchanged
    ones answer 304), new images are added and vanished ones marked in the journal. Where the
    recipe's source has changed, all pages are read again.
    """
    with _Crawl(recipe, dataset, log) as crawling:
        crawling.begin(refresh)
        return crawling.run()


def retry_pages(recipe: Recipe, dataset: Dataset, log: EventLog, urls: Iterable[str]) -> set[str]:
    """Fetch failed pages again, and what they lead to; those of `urls` that are now had."""
    asked = set(urls)
    with _Crawl(recipe, dataset, log) as crawling:
        crawling.journal.requeue(sorted(asked))
        crawling.run()
        pages = {url: crawling.journal.page(url) for url in asked}
        return {url for url, page in pages.items() if page and page.state == "done"}


class _Crawl:
    def __init__(self, recipe: Recipe, dataset: Dataset, log: EventLog) -> None:
        self._recipe = recipe
        self._source = recipe.source
        self._adapter = SOURCES[recipe.source.kind]
        self._log = log
        self._copies = dataset.data / "lists"
        self.journal = CrawlJournal(dataset.crawl_journal, dataset.urls)
        self._new = 0
        self._full = False
        self._show_after = 0.0

    def __enter__(self) -> _Crawl:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def begin(self, refresh: bool) -> None:
        """Queue the pages of this run."""
        caught_up = self.journal.caught_up
        if any(asdict(caught_up).values()):
            self._log.emit(STAGE, "manifest read", **asdict(caught_up))
        digest, images = self._digest(), self.journal.images
        before = images.get("source")
        if before is not None and before != digest:
            self._log.emit(STAGE, "recipe changed", again="all pages")
            self.journal.requeue_all(unconditionally=True)
        elif refresh and not images.get("refreshing"):  # one that was killed goes on
            self.journal.requeue_all(unconditionally=False)
            images.put("refreshing", 1)
        start = self._adapter.start(self._source)
        self.journal.add_pages(start)
        # Without its first page a crawl is nothing, so that one needs no retrying from the log.
        self.journal.requeue(one.url for one in start)
        images.put("source", digest)

    def _digest(self) -> str:
        """Identifies the source's settings, but for the limits: raising one only goes on."""
        values = TypeAdapter(type(self._source)).dump_python(self._source, mode="json")
        kept = {key: value for key, value in values.items() if key not in _LIMITS}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def run(self) -> CrawlResult:
        """Fetch and finish pages until none is left or a limit is reached."""
        threads = max(MIN_THREADS, self._recipe.politeness.concurrency)
        with Fetcher(self._recipe.politeness) as fetcher:
            pool = ThreadPoolExecutor(threads, thread_name_prefix="crawl")
            try:
                self._work(fetcher, pool, threads)
            finally:
                pool.shutdown(cancel_futures=True)
        self.journal.images.merge()
        self.journal.images.put("refreshing", 0)
        self._show(final=True)
        revised = self.journal.images.revise()
        if revised:
            self._log.emit(STAGE, "rows revised", rows=revised)
        counts = self.journal.page_counts(self._source.max_pages)
        return CrawlResult(
            pages=counts.get("done", 0),
            urls=self.journal.images.count(),
            new=self._new,
            failed=counts.get("failed", 0),
            vanished=self.journal.images.vanished(),
        )

    def _work(self, fetcher: Fetcher, pool: ThreadPoolExecutor, threads: int) -> None:
        flying: dict[Future[_Fetched | Failure], JournalPage] = {}
        while True:
            self._finish_heads()
            while not self._full and len(flying) < threads:
                page = self._next_page(flying.values())
                if page is None:
                    break
                flying[pool.submit(self._visit, fetcher, page)] = page
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                self._land(flying.pop(future), future.result())

    def _next_page(self, flying: Collection[JournalPage]) -> JournalPage | None:
        """The first page whose host is not busy, so that a slow one does not hold all threads."""
        busy = Counter(urlsplit(page.request.url).netloc for page in flying)
        taken = {page.id for page in flying}
        for page in self.journal.waiting(_LOOKAHEAD + len(taken), self._source.max_pages):
            host = urlsplit(page.request.url).netloc
            if page.id not in taken and busy[host] < self._recipe.politeness.concurrency:
                return page
        return None

    # one page, in a thread of its own

    def _visit(self, fetcher: Fetcher, page: JournalPage) -> _Fetched | Failure:
        if self._adapter.copies is not None:
            return self._copy(fetcher, page, self._adapter.copies(self._source))
        most = max(self._recipe.politeness.max_page_bytes, self._adapter.page_bytes(page.request))
        answer = fetcher.get(
            page.request.url, stage=STAGE, headers=_validators(page), max_bytes=most
        )
        if isinstance(answer, Failure):
            return answer
        digest = hashlib.sha256(answer.body).hexdigest()
        if answer.status == 304 or (page.digest == digest and page.fetched):
            return _Fetched(None)
        read = Page(page.request, answer.body, answer.url, answer.headers)
        result = self._parse(read, answer.signals)
        if isinstance(result, Failure):
            return result
        return _Fetched(
            result, answer.headers.get("etag"), answer.headers.get("last-modified"), digest
        )

    def _copy(self, fetcher: Fetcher, page: JournalPage, most: int) -> _Fetched | Failure:
        """Have a page's file on the disk, whence it is read at its turn."""
        url = page.request.url
        path = self._copy_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        headers = _validators(page) if path.exists() else {}
        answer = fetcher.get(url, stage=STAGE, headers=headers, copy=Copy(aside, most))
        if isinstance(answer, Failure):
            aside.unlink(missing_ok=True)
            return answer
        if answer.status == 304:
            return _Fetched(None)
        aside.replace(path)
        return _Fetched(
            PageResult(), answer.headers.get("etag"), answer.headers.get("last-modified")
        )

    def _copy_path(self, url: str) -> Path:
        return self._copies / image_key(url.partition("#")[0])

    def _parse(self, page: Page, signals: Sequence[Signal] = ()) -> PageResult | Failure:
        """What the page holds. Whatever a page makes the parser do, the crawl goes on.

        `signals` are overridden opt-out signals of the request.
        """
        url = page.request.url
        try:
            result = self._adapter.parse(self._source, page)
        except UserError:
            raise
        except Exception:  # noqa: BLE001 - the boundary of one page; the traceback is kept
            detail = traceback.format_exc(limit=-3)
            return failure(STAGE, url, "unexpected_form", detail=detail)
        if result.problem:
            return failure(STAGE, url, "unexpected_form", detail=result.problem)
        return self._with_signals(url, result, signals)

    def _with_signals(
        self, url: str, result: PageResult, signals: Sequence[Signal]
    ) -> PageResult | Failure:
        """The result with the overridden opt-out signals of the page in its rows; a failure if it
        has images and a signal that counts. Pages without images only lead to others."""
        politeness = self._recipe.politeness
        signals = [*signals, *meta_signals(result.terms.metas, politeness.user_agent)]
        if not signals or not result.rows:
            return result
        if refusing := politeness.refusing(signals):
            return failure(STAGE, url, "opt_out", detail=describe(refusing))
        said = tuple(dict.fromkeys(str(signal) for signal in signals))
        return replace(result, rows=[replace(row, page_opt_out=said) for row in result.rows])

    # back in the main thread

    def _land(self, page: JournalPage, outcome: _Fetched | Failure) -> None:
        if isinstance(outcome, _Fetched):
            held = None if outcome.result is None else _to_text(outcome.result)
            self.journal.hold(page.id, held, outcome.etag, outcome.last_modified, outcome.digest)
        elif page.fetched and outcome.kind in _GONE:
            self._log.emit(STAGE, "page vanished", url=page.request.url, kind=outcome.kind)
            self.journal.lose(page.id)
        else:
            self._log.fail(outcome)
            self.journal.fail(page.id)

    def _finish_heads(self) -> None:
        """Write the results of the pages whose turn it is."""
        while not self._full:
            page = self.journal.head(self._source.max_pages)
            if page is None:
                return
            if page.request.url.startswith(SCHEME):
                self._finish_file(page, file_path(page.request.url)[0])
            elif self._adapter.copies and is_piece(page.request.url):
                self._finish_piece(page)
            elif page.state == "held" and page.result is None:
                self._finish(page, None)
            elif page.state == "held" and self._adapter.copies:
                path = self._copy_path(page.request.url)
                self._finish_parsed(page, Page(page.request, path=path))
            elif page.state == "held":
                self._finish(page, _from_text(page.result or ""))
            else:
                return
            self._show()

    def _finish_file(self, page: JournalPage, path: Path) -> None:
        stamp = _stamp(path)
        if stamp and stamp == page.digest and page.fetched:
            self._finish(page, None)
        elif self._finish_parsed(page, Page(page.request, path=path)):
            self.journal.stamp(page.id, stamp)

    def _finish_piece(self, page: JournalPage) -> None:
        """Read a piece of a copied file; where the copy is gone, have it made again before."""
        path = self._copy_path(page.request.url)
        if path.exists():
            self._finish_file(page, path)
        else:
            self.journal.requeue_whole(page.request.url)

    def _finish_parsed(self, page: JournalPage, read: Page) -> bool:
        """Read a file and write what is in it; whether it was good to its end."""
        result = self._parse(read)
        if not isinstance(result, Failure):
            try:
                self._finish(page, result)
                return True
            except BrokenFile as error:
                result = failure(STAGE, page.request.url, "unexpected_form", detail=str(error))
        self._log.fail(result)
        self.journal.fail(page.id)
        return False

    def _finish(self, page: JournalPage, result: PageResult | None) -> None:
        now = now_utc()
        if result is None:
            self.journal.finish_unchanged(page.id, now)
            return
        depth = self._source.max_depth
        follow = [one for one in result.follow if one.depth <= depth]
        rows = (found.row(page.request.url, now) for found in result.rows)
        new, self._full = self.journal.finish(page.id, rows, follow, now, self._source.max_images)
        self._new += new
        self._tell(page, result, follow)

    def _tell(self, page: JournalPage, result: PageResult, follow: list[PageRequest]) -> None:
        """A page that gave nothing, or hid something behind scripts, is told with the reason."""
        nothing = not result.rows and not follow
        local = page.request.url.startswith(SCHEME) and result.notes
        if nothing or local or "template" in result.notes:
            reasons = dict(result.notes)
            images = len(result.rows) if isinstance(result.rows, tuple | list) else None
            self._log.emit(
                STAGE, "page passed over" if nothing else "page in part passed over",
                url=page.request.url, images=images, reasons=reasons,
            )  # fmt: skip

    def _show(self, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now < self._show_after:
            return
        counts = self.journal.page_counts(self._source.max_pages)
        done = sum(counts.get(state, 0) for state in ("done", "failed", "gone"))
        self._log.progress(STAGE, done, sum(counts.values()), "pages")
        # Counting a long queue takes its time: 2 % of the crawl's at most.
        self._show_after = now + max(0.1, 50 * (time.monotonic() - now))


def _validators(page: JournalPage) -> dict[str, str]:
    """The headers that ask for a page only if it has changed."""
    headers = {"If-None-Match": page.etag, "If-Modified-Since": page.last_modified}
    return {name: value for name, value in headers.items() if value}


def _stamp(path: Path) -> str | None:
    """What changes when a file, or the list of names in a folder, does."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _to_text(result: PageResult) -> str:
    return json.dumps(
        {
            "rows": [found.to_json() for found in result.rows],
            "follow": [asdict(replace(one, context=dict(one.context))) for one in result.follow],
            "notes": dict(result.notes),
        }
    )


def _from_text(text: str) -> PageResult:
    values = json.loads(text)
    return PageResult(
        rows=[Found.from_json(row) for row in values["rows"]],
        follow=[PageRequest(**one) for one in values["follow"]],
        notes=values["notes"],
    )

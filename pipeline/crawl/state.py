"""The state of a crawl, `data/NAME/crawl.sqlite`: pages to visit and images found.

It stores the whole state, so memory does not grow with the crawl, and a kill loses at most the
pages in flight. The images of a page are written to the manifest in the order of page numbers.

A page is `new` (queued), `held` (fetched, but not yet written), `done`, `failed`, or `gone` (it
existed before).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, ManifestRow
from pipeline.crawl.database import open_database
from pipeline.crawl.image_index import EXTERNAL, ImageIndex
from pipeline.crawl.manifest_lookup import batches
from pipeline.databases import sqlite_errors, transaction
from pipeline.sources import PageRequest

CHAIN = "chain"
"""Key in the context of a next page: the number of images before the page that links to it, and the
number of consecutive pages of the list without a new image."""

_STALE = "context LIKE ' %'"
"""A stale context is from an earlier recipe. It begins with a space, which JSON ignores."""


@dataclass(frozen=True)
class CrawlPage:
    """A page of the crawl. `fetched` is the time of the last successful fetch, or None."""

    id: int
    request: PageRequest
    state: str
    etag: str | None
    last_modified: str | None
    digest: str | None
    fetched: str | None
    result: str | None


def is_chunk(url: str) -> bool:
    """Return True if the URL is that of a chunk of a file. URLs of pages have no fragment."""
    return "#" in url


@contextmanager
def open_crawl_state(dataset: DatasetPaths) -> Iterator[CrawlState]:
    """Open the crawl state of a dataset. SQLite errors in the block become a `UserError`.

    Raises:
        OSError: the disk is full.
        UserError: the file is damaged, or a line of the manifest is not a row.
    """
    with sqlite_errors(dataset.crawl_state, _IF_DAMAGED):
        state = CrawlState(dataset.crawl_state, dataset.url_manifest)
        try:
            yield state
        finally:
            state.close()


_IF_DAMAGED = (
    "remove it and run the same command again: the pages are visited again, the URL manifest and "
    "what was downloaded are kept"
)


class CrawlState:
    """The state of one crawl, opened by `open_crawl_state`. Not thread-safe; the caller must hold
    the lock of the dataset."""

    def __init__(self, path: Path, manifest: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = open_database(path)
        try:
            self.images = ImageIndex(self._db, manifest)
        except BaseException:
            self._db.close()
            raise
        try:
            self.caught_up = self.images.catch_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.images.close()
        self._db.close()

    def page_counts(self, max_pages: int) -> dict[str, int]:
        """Return the number of pages per state, among the first `max_pages`."""
        rows = self._db.execute(
            "SELECT state, count(*) FROM pages WHERE id <= ? GROUP BY state", (max_pages,)
        )
        return dict(rows.fetchall())

    # the queue

    def add_pages(self, requests: Iterable[PageRequest]) -> None:
        """Append unknown pages to the queue. The context of a chunk is replaced, because the chunks
        of a changed file start at other offsets; a stale context is replaced except its chain."""
        rows = [(one.url, one.depth, json.dumps(dict(one.context))) for one in requests]
        self._db.executemany(
            "UPDATE pages SET depth = ?2, context = json_patch(?3, json_object("
            f"'{CHAIN}', json_extract(context, '$.{CHAIN}'))) WHERE url = ?1 AND {_STALE}",
            rows,
        )
        self._db.executemany(
            "INSERT INTO pages (url, depth, context, state) VALUES (?, ?, ?, 'new') "
            "ON CONFLICT (url) DO UPDATE SET context = excluded.context "
            "WHERE (url LIKE 'file:%' OR url LIKE '%#%') AND context != excluded.context",
            rows,
        )

    def waiting(self, count: int, max_pages: int) -> list[CrawlPage]:
        """Return pages to fetch, from the first `count` in the queue. One with a stale context
        must be the first, because an earlier page may replace the context."""
        return self._pages(
            "id IN (SELECT id FROM pages WHERE state = 'new' AND id <= ? AND url NOT LIKE 'file:%' "
            "AND url NOT LIKE '%#%' ORDER BY id LIMIT ?) "
            f"AND (NOT {_STALE} OR id = (SELECT min(id) FROM pages WHERE state = 'new')) "
            "ORDER BY id",
            (max_pages, count),
            count,
        )

    def first_unfinished(self, max_pages: int) -> CrawlPage | None:
        """Return the first page that is queued or held: the next one to write, or None."""
        found = [
            self._db.execute(
                "SELECT min(id) FROM pages WHERE state = ? AND id <= ?", (state, max_pages)
            ).fetchone()[0]
            for state in ("new", "held")
        ]
        first = min((one for one in found if one is not None), default=None)
        return None if first is None else self._page("id = ?", (first,))

    def page(self, url: str) -> CrawlPage | None:
        """Return the page with this URL, or None."""
        return self._page("url = ?", (url,))

    def _page(self, where: str, values: Sequence[Any]) -> CrawlPage | None:
        return next(iter(self._pages(where, values, 1)), None)

    def _pages(self, where: str, values: Sequence[Any], limit: int) -> list[CrawlPage]:
        rows = self._db.execute(
            "SELECT id, url, depth, context, state, etag, last_modified, digest, fetched, result "
            f"FROM pages WHERE {where} LIMIT {limit:d}",
            values,
        )
        try:
            return [
                CrawlPage(row[0], PageRequest(row[1], row[2], json.loads(row[3])), *row[4:])
                for row in rows
            ]
        except ValueError:
            raise sqlite3.DatabaseError("the context of a page is not JSON") from None

    def requeue(self, urls: Iterable[str]) -> None:
        """Queue failed pages again."""
        self._db.executemany(
            "UPDATE pages SET state = 'new' WHERE url = ? AND state = 'failed'",
            ((url,) for url in urls),
        )

    def requeue_file(self, chunk_url: str) -> None:
        """Queue the file of a chunk again."""
        self._db.execute(
            "UPDATE pages SET state = 'new', result = NULL WHERE url = ?",
            (chunk_url.partition("#")[0],),
        )

    def requeue_all(self, *, unconditionally: bool) -> None:
        """Queue every page again, by conditional requests unless `unconditionally`: then also their
        contexts are stale, until a page or the recipe names the page again. Results that are not
        written are lost, so their pages are requested without conditions."""
        where = "" if unconditionally else "WHERE state = 'held'"
        with transaction(self._db):
            self._db.execute(
                f"UPDATE pages SET etag = NULL, last_modified = NULL, digest = NULL {where}"
            )
            self._db.execute("UPDATE pages SET state = 'new', result = NULL")
            if unconditionally:
                self._db.execute("UPDATE pages SET context = ' ' || ltrim(context)")

    # the outcome of a page

    def store_result(
        self,
        page: int,
        result: str | None,
        etag: str | None = None,
        last_modified: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Store the result of a fetched page until it is written; None if it has not changed."""
        if result is None:
            self._db.execute("UPDATE pages SET state = 'held', result = NULL WHERE id = ?", (page,))
            return
        self._db.execute(
            "UPDATE pages SET state = 'held', result = ?, etag = ?, last_modified = ?, digest = ? "
            "WHERE id = ?",
            (result, etag, last_modified, digest, page),
        )

    def set_file_stamp(self, page: int, digest: str | None) -> None:
        """Store the stamp of a file that was read."""
        self._db.execute("UPDATE pages SET digest = ? WHERE id = ?", (digest, page))

    def fail(self, page: int, opt_out: Sequence[str] = ()) -> None:
        """Mark a page as failed. Images found earlier are kept, with the signals `opt_out`. The
        validators are cleared, because they may describe the body that could not be parsed."""
        with transaction(self._db):
            if opt_out:
                self.images.opt_out(page, opt_out)
            self._db.execute(
                "UPDATE pages SET state = 'failed', result = NULL, etag = NULL, "
                "last_modified = NULL, digest = NULL WHERE id = ?",
                (page,),
            )

    def mark_gone(self, page: int) -> None:
        """Mark a page as gone; its images are no longer found on it."""
        with transaction(self._db):
            self.images.begin_page_update(page)
            self.images.end_page_update(page)
            self._db.execute(
                "UPDATE pages SET state = 'gone', result = NULL, etag = NULL, "
                "last_modified = NULL, digest = NULL WHERE id = ?",
                (page,),
            )

    def finish_unchanged(self, page: int, now: str) -> None:
        """Finish a page that has not changed."""
        self._db.execute("UPDATE pages SET state = 'done', fetched = ? WHERE id = ?", (now, page))

    def finish(
        self,
        page: int,
        rows: Iterable[ManifestRow],
        follow: Sequence[PageRequest],
        now: str,
        max_images: int | None = None,
    ) -> tuple[int, bool]:
        """Write a page's new images to the manifest, queue its further pages, mark it as done.

        Return the number of new rows, and whether the limit of images was reached first (then the
        page is not done).
        """
        added, first = 0, True
        for batch in batches(rows):
            with transaction(self._db):
                if first:
                    self.images.begin_page_update(page)
                count, full = self.images.add(page, batch, max_images)
            self.images.merge_if_many()
            first = False
            added += count
            if full:
                return added, True
        with transaction(self._db):
            if first:
                self.images.begin_page_update(page)
            self.images.end_page_update(page)
            self.add_pages(follow)
            self._db.execute(
                "UPDATE pages SET state = 'done', result = NULL, fetched = ? WHERE id = ?",
                (now, page),
            )
        return added, False

    def add_external(self, rows: list[ManifestRow]) -> int:
        """Add rows from outside of this crawl. Return the number of new rows."""
        with transaction(self._db):
            added = self.images.add(EXTERNAL, rows)[0]
        self.images.merge_if_many()
        return added

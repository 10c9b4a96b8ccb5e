"""The crawl's journal, `data/NAME/crawl.sqlite`: the pages to visit and the images known.

It holds all state of a crawl, so that memory does not grow with it and a kill costs at most the
pages in flight. Pages are written to the manifest whole and in the order of their numbers; the
journal remembers how far it knows the manifest, and catches up when it is opened.

A page is `new` (to fetch), `held` (fetched; its result waits for its turn to be written), `done`,
`failed`, or `gone` (it was there once). An image's row says on which page it was found; page 0 is
"not found by this crawl", page -1 "on no page any more".
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.contract import JsonlAppender, ManifestRow
from pipeline.errors import UserError
from pipeline.sources import PageRequest

BATCH = 5000
"""Rows that are held in memory and written together."""

FOREIGN, NOWHERE = 0, -1
_TAIL = 4096
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, depth INTEGER NOT NULL,
    context TEXT NOT NULL, state TEXT NOT NULL, etag TEXT, last_modified TEXT, digest TEXT,
    fetched TEXT, result TEXT
);
CREATE INDEX IF NOT EXISTS pages_state ON pages (state, id);
CREATE TABLE IF NOT EXISTS images (
    key INTEGER NOT NULL, page INTEGER NOT NULL, PRIMARY KEY (key, page)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_page ON images (page);
"""

T = TypeVar("T")


@dataclass(frozen=True)
class JournalPage:
    """A page of the journal. `fetched` is when it was last had, None if it never was."""

    id: int
    request: PageRequest
    state: str
    etag: str | None
    last_modified: str | None
    digest: str | None
    fetched: str | None
    result: str | None


@dataclass(frozen=True)
class CaughtUp:
    """What opening the journal found in the manifest: `rows` it did not know, `lost` rows that
    had been there, and so `again` pages to fetch again."""

    rows: int = 0
    lost: int = 0
    again: int = 0


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _number(key: str) -> int:
    """A manifest key as SQLite's signed 64-bit integer."""
    number = int(key, 16)
    return number - (1 << 64) if number >= 1 << 63 else number


class CrawlJournal:
    """The state of one crawl and its manifest. For one thread; the dataset's lock is held."""

    def __init__(self, path: Path, manifest: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._manifest = manifest
        self._rows = JsonlAppender(manifest)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16000;"
            "PRAGMA temp_store = FILE;"
        )
        self._db.executescript(_SCHEMA)
        self._has_old = False
        self.caught_up = self._catch_up()

    def close(self) -> None:
        self._rows.sync()
        self._rows.close()
        self._db.close()

    def __enter__(self) -> CrawlJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    # facts

    def get(self, name: str) -> Any:
        """A fact kept under `name`, None where there is none."""
        return self._one("SELECT value FROM meta WHERE name = ?", (name,))

    def put(self, name: str, value: Any) -> None:
        """Keep a fact under `name`."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def page_counts(self, max_pages: int) -> dict[str, int]:
        """Pages by state, among the first `max_pages`."""
        rows = self._db.execute(
            "SELECT state, count(*) FROM pages WHERE id <= ? GROUP BY state", (max_pages,)
        )
        return dict(rows.fetchall())

    def image_count(self) -> int:
        """Rows of the manifest."""
        return int(self.get("rows") or 0)

    def vanished_count(self) -> int:
        """Rows of the manifest whose image is on no page any more."""
        return int(self._one("SELECT count(*) FROM images WHERE page = ?", (NOWHERE,)))

    # pages

    def add_pages(self, requests: Iterable[PageRequest]) -> None:
        """Put pages not yet known at the end of the queue. Pieces of a file that has changed begin
        somewhere else now: their context is the new one."""
        self._db.executemany(
            "INSERT INTO pages (url, depth, context, state) VALUES (?, ?, ?, 'new') "
            "ON CONFLICT (url) DO UPDATE SET context = excluded.context "
            "WHERE url LIKE 'file:%' AND context != excluded.context",
            ((one.url, one.depth, json.dumps(dict(one.context))) for one in requests),
        )

    def waiting(self, after: int, max_pages: int) -> JournalPage | None:
        """The first page to fetch whose number is above `after`."""
        return self._page(
            "state = 'new' AND id > ? AND id <= ? AND url NOT LIKE 'file:%' ORDER BY id",
            (after, max_pages),
        )

    def head(self, max_pages: int) -> JournalPage | None:
        """The first page that is not finished; the only one whose result may be written."""
        found = [
            self._one("SELECT min(id) FROM pages WHERE state = ? AND id <= ?", (state, max_pages))
            for state in ("new", "held")
        ]
        first = min((one for one in found if one is not None), default=None)
        return None if first is None else self._page("id = ?", (first,))

    def page(self, url: str) -> JournalPage | None:
        """The page with this URL."""
        return self._page("url = ?", (url,))

    def _page(self, where: str, values: Sequence[Any]) -> JournalPage | None:
        row = self._db.execute(
            "SELECT id, url, depth, context, state, etag, last_modified, digest, fetched, result "
            f"FROM pages WHERE {where} LIMIT 1",
            values,
        ).fetchone()
        if row is None:
            return None
        return JournalPage(row[0], PageRequest(row[1], row[2], json.loads(row[3])), *row[4:])

    def hold(
        self,
        page: int,
        result: str | None,
        etag: str | None = None,
        last_modified: str | None = None,
        digest: str | None = None,
    ) -> None:
        """A page was fetched: keep its result until its turn. None means it has not changed."""
        if result is None:
            self._db.execute("UPDATE pages SET state = 'held', result = NULL WHERE id = ?", (page,))
            return
        self._db.execute(
            "UPDATE pages SET state = 'held', result = ?, etag = ?, last_modified = ?, digest = ? "
            "WHERE id = ?",
            (result, etag, last_modified, digest, page),
        )

    def stamp(self, page: int, digest: str | None) -> None:
        """Remember what a file looked like when it was read."""
        self._db.execute("UPDATE pages SET digest = ? WHERE id = ?", (digest, page))

    def fail(self, page: int) -> None:
        """A page could not be had; what was found on it before stays."""
        self._db.execute("UPDATE pages SET state = 'failed', result = NULL WHERE id = ?", (page,))

    def lose(self, page: int) -> None:
        """A page that was there is gone, and so is its place as one where its images are."""
        with self._transaction():
            self._remember_old(page)
            self._forget_old(page)
            self._db.execute(
                "UPDATE pages SET state = 'gone', result = NULL, etag = NULL, "
                "last_modified = NULL, digest = NULL WHERE id = ?",
                (page,),
            )

    def requeue(self, urls: Iterable[str]) -> None:
        """Put failed pages back to be fetched."""
        self._db.executemany(
            "UPDATE pages SET state = 'new' WHERE url = ? AND state = 'failed'",
            ((url,) for url in urls),
        )

    def requeue_all(self, *, unconditionally: bool) -> None:
        """Put every page back to be fetched, asking only for changes unless told otherwise."""
        validators = ", etag = NULL, last_modified = NULL, digest = NULL" if unconditionally else ""
        self._db.execute(f"UPDATE pages SET state = 'new', result = NULL{validators}")

    # images

    def finish_unchanged(self, page: int, now: str) -> None:
        """A page is as it was."""
        self._db.execute("UPDATE pages SET state = 'done', fetched = ? WHERE id = ?", (now, page))

    def finish(
        self,
        page: int,
        rows: Iterable[ManifestRow],
        follow: Sequence[PageRequest],
        now: str,
        max_images: int | None = None,
    ) -> tuple[int, bool]:
        """Write a page's new images to the manifest, queue its further pages, call it done.

        Returns how many rows were new, and whether the limit of images came first (then the page
        is not done).
        """
        added, full, old = 0, False, False
        for batch in batches(rows):
            with self._transaction():
                old = old or self._remember_old(page)
                count, full = self._add_batch(page, batch, max_images)
            added += count
            if full:
                return added, True
        with self._transaction():
            if old or self._remember_old(page):
                self._forget_old(page)
            self.add_pages(follow)
            self._db.execute(
                "UPDATE pages SET state = 'done', result = NULL, fetched = ? WHERE id = ?",
                (now, page),
            )
        return added, False

    def add_foreign(self, rows: list[ManifestRow]) -> int:
        """Add rows that no page of this crawl gave, unless they are known; how many were new."""
        with self._transaction():
            return self._add_batch(FOREIGN, rows, None)[0]

    def _add_batch(
        self, page: int, batch: list[ManifestRow], max_images: int | None
    ) -> tuple[int, bool]:
        fresh: dict[int, ManifestRow] = {}
        seen: list[int] = []
        known = self.image_count()
        full = False
        for row in batch:
            key = _number(row.key)
            if key not in fresh and not self._one(
                "SELECT 1 FROM images WHERE key = ? LIMIT 1", (key,)
            ):
                if max_images is not None and known + len(fresh) >= max_images:
                    full = True
                    break
                fresh[key] = row
            seen.append(key)
        if fresh:
            self._rows.append(*(row.to_json() for row in fresh.values()))
            self._remember_manifest(known + len(fresh))
        self._link(page, seen)
        return len(fresh), full

    def _link(self, page: int, keys: Sequence[int]) -> None:
        values = [(key,) for key in keys]
        self._db.executemany(f"INSERT OR IGNORE INTO images VALUES (?, {page:d})", values)
        if self._one("SELECT 1 FROM images WHERE page = ? LIMIT 1", (NOWHERE,)):
            self._db.executemany(f"DELETE FROM images WHERE key = ? AND page = {NOWHERE:d}", values)
        if self._has_old:
            self._db.executemany("DELETE FROM old WHERE key = ?", values)

    def _remember_old(self, page: int) -> bool:
        """Set aside which images the page had; what is left at the end is there no more."""
        self._has_old = bool(self._one("SELECT 1 FROM images WHERE page = ? LIMIT 1", (page,)))
        if self._has_old:
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS old (key INTEGER PRIMARY KEY)")
            self._db.execute("DELETE FROM old")
            self._db.execute("INSERT INTO old SELECT key FROM images WHERE page = ?", (page,))
        return True

    def _forget_old(self, page: int) -> None:
        if not self._has_old:
            return
        self._db.execute(
            "DELETE FROM images WHERE page = ? AND key IN (SELECT key FROM old)", (page,)
        )
        self._db.execute(
            "INSERT INTO images SELECT key, ? FROM old "
            "WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.key = old.key)",
            (NOWHERE,),
        )
        self._db.execute("DELETE FROM old")
        self._has_old = False

    # the manifest

    def _remember_manifest(self, rows: int, offset: int | None = None) -> None:
        stat = self._manifest.stat()
        end = stat.st_size if offset is None else offset
        self.put("rows", rows)
        self.put("offset", end)
        self.put("mtime", stat.st_mtime_ns)
        self.put("tail", _tail_digest(self._manifest, end))

    def _catch_up(self) -> CaughtUp:
        """Learn what is in the manifest and not in the journal: the end that a killed crawl wrote
        last or that was imported; or all of it, when it is not the file that was left."""
        offset, stat = int(self.get("offset") or 0), self._manifest.stat()
        same = (
            stat.st_size >= offset
            and (stat.st_size > offset or offset == 0 or stat.st_mtime_ns == self.get("mtime"))
            and (offset == 0 or _tail_digest(self._manifest, offset) == self.get("tail"))
        )
        if same:
            return CaughtUp(rows=self._ingest(offset) if stat.st_size > offset else 0)
        return self._reread()

    def _ingest(self, offset: int) -> int:
        """Take the rows from `offset` on as known; how many were not."""
        added = 0
        with self._manifest.open("rb") as file:
            file.seek(offset)
            for lines in batches(file):
                offset += sum(map(len, lines))
                with self._transaction():
                    new = self._learn(lines)
                    self._remember_manifest(self.image_count() + new, offset)
                added += new
        return added

    def _learn(self, lines: Iterable[bytes]) -> int:
        before = self._db.total_changes
        self._db.executemany(
            "INSERT INTO images SELECT ?1, ifnull((SELECT id FROM pages WHERE url = ?2), "
            f"{FOREIGN}) WHERE NOT EXISTS (SELECT 1 FROM images WHERE key = ?1)",
            (self._identify(line) for line in lines if line.strip()),
        )
        return self._db.total_changes - before

    def _identify(self, line: bytes) -> tuple[int, str]:
        try:
            row = json.loads(line)
            return _number(row["key"]), str(row.get("page", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            text = line[:60].decode(errors="replace").strip()
            raise UserError(f"{self._manifest}: not a manifest row: {text}") from None

    def _reread(self) -> CaughtUp:
        """Believe the manifest anew; pages whose rows it has lost are to be fetched again."""
        with self._transaction(), self._manifest.open("rb") as file:
            self._db.execute("CREATE TEMP TABLE present (key INTEGER PRIMARY KEY)")
            added = 0
            for lines in batches(file):
                added += self._learn(lines)
                self._db.executemany(
                    "INSERT OR IGNORE INTO present VALUES (?)",
                    ((self._identify(line)[0],) for line in lines if line.strip()),
                )
            absent = "FROM images WHERE key NOT IN (SELECT key FROM present)"
            lost = self._one(f"SELECT count(DISTINCT key) {absent}")
            again = self._db.execute(
                "UPDATE pages SET state = 'new', etag = NULL, last_modified = NULL, digest = NULL "
                f"WHERE id IN (SELECT page {absent}) AND state = 'done'"
            ).rowcount
            self._db.execute(f"DELETE {absent}")
            self._remember_manifest(self._one("SELECT count(*) FROM present"), file.tell())
            self._db.execute("DROP TABLE present")
        return CaughtUp(added, lost, again)


def _tail_digest(path: Path, end: int) -> str:
    """A digest of the last bytes of a file before `end`, to know it again by."""
    with path.open("rb") as file:
        file.seek(max(0, end - _TAIL))
        return hashlib.sha256(file.read(min(end, _TAIL))).hexdigest()

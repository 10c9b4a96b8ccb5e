"""The index of the images found by a crawl, and the manifest that lists them.

The table `images` stores the pages on which each row of the manifest was found. It prevents
duplicate keys and shows when an image has vanished. The manifest is authoritative: the index
records how much of the manifest it has read, and reads the rest when it is opened.

Keys are hashes, so each insertion would write to a random place of the table. New rows are
therefore appended to `recent` (their keys are in memory) and merged in batches, in key order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.atomic_io import atomic_file
from pipeline.contract import JsonlAppender, ManifestRow
from pipeline.crawl.manifest_lookup import (
    batches,
    key_number,
    parse_line,
    row_checksum,
    tail_digest,
)
from pipeline.crawl.revisions import note_opt_out, note_revision, revised_line
from pipeline.databases import transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    key INTEGER NOT NULL, page INTEGER NOT NULL, facts INTEGER NOT NULL, PRIMARY KEY (key, page)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_page ON images (page);
CREATE TABLE IF NOT EXISTS recent (
    key INTEGER NOT NULL, page INTEGER NOT NULL, facts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS revised (
    key INTEGER NOT NULL, page TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (key, page)
) WITHOUT ROWID;
"""

RECENT = 250_000
"""Number of new rows that are merged together; their keys take about 16 MB of memory."""

EXTERNAL, NO_PAGE = 0, -1
"""Page numbers of images that are not from this crawl, and of vanished images."""


@dataclass(frozen=True)
class CatchUpResult:
    """The numbers of new `rows`, of `lost` rows, and of pages to fetch `again` because of them."""

    rows: int = 0
    lost: int = 0
    again: int = 0


class ImageIndex:
    """The rows of the manifest and the pages on which they were found. Call `add`,
    `begin_page_update`, `end_page_update` and `opt_out` inside a transaction."""

    def __init__(self, db: sqlite3.Connection, manifest: Path) -> None:
        self._db = db
        self._manifest = manifest
        self._has_old = False
        self._recent: set[int] = set()
        db.executescript(_SCHEMA)
        self.merge()
        self._rows = JsonlAppender(manifest)

    def merge(self) -> None:
        """Move the recent rows into the table `images`. Call it outside of a transaction."""
        with transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO images SELECT * FROM recent ORDER BY key, page")
            self._db.execute("DELETE FROM recent")
        self._recent.clear()

    def close(self) -> None:
        self._rows.sync()
        self._rows.close()

    def _one(self, query: str, *values: Any) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def get(self, name: str) -> Any:
        """Return the value stored under `name`, or None."""
        return self._one("SELECT value FROM meta WHERE name = ?", name)

    def put(self, name: str, value: Any) -> None:
        """Store a value under `name`."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def count(self) -> int:
        """Return the number of rows in the manifest."""
        return int(self.get("rows") or 0)

    def gained(self) -> int:
        """Return how many images were new to this crawl when they were found. The number only
        grows, so a difference shows whether the pages in between had new images."""
        return int(self.get("gained") or 0)

    def vanished(self) -> int:
        """Return the number of rows whose image is no longer on any page."""
        return int(self._one("SELECT count(*) FROM images WHERE page = ?", NO_PAGE))

    # the images of a page

    def add(
        self, page: int, rows: Iterable[ManifestRow], max_images: int | None = None
    ) -> tuple[int, bool]:
        """Append the new rows. Return their number, and whether `max_images` was reached."""
        fresh: dict[int, ManifestRow] = {}
        seen: dict[int, int] = {}
        known, full, found_again = self.count(), False, 0
        for row in rows:
            key, checksum = key_number(row.key), row_checksum(row)
            before = self._page_of(key)
            if key not in fresh and before is None:
                if max_images is not None and known + len(fresh) >= max_images:
                    full = True
                    break
                fresh[key] = row
            elif key not in seen:
                note_revision(self._db, key, page, checksum, row)
                found_again += before is not None and before <= EXTERNAL
            seen.setdefault(key, checksum)
        if fresh or found_again:
            self.put("gained", self.gained() + len(fresh) + found_again)
        if fresh:
            self._rows.append(*(row.to_json() for row in fresh.values()))
            self._remember(known + len(fresh))
            self._db.executemany(
                "INSERT INTO recent VALUES (?, ?, ?)", ((key, page, seen[key]) for key in fresh)
            )
            self._recent.update(fresh)
        self._link(page, {key: checksum for key, checksum in seen.items() if key not in fresh})
        return len(fresh), full

    def merge_if_many(self) -> None:
        """Merge if there are many recent rows. Call it outside of a transaction."""
        if len(self._recent) >= RECENT:
            self.merge()

    def _page_of(self, key: int) -> int | None:
        """Return a page on which the image was found, preferably one of this crawl; None if the
        image is new."""
        if key in self._recent:
            return 1
        page: int | None = self._one("SELECT max(page) FROM images WHERE key = ?", key)
        return page

    def opt_out(self, page: int, signals: Sequence[str]) -> None:
        """Record that a page opts out. Its images have these signals in the manifest, except those
        that are also on a page that does not opt out."""
        note_opt_out(self._db, page, signals)

    def _link(self, page: int, seen: dict[int, int]) -> None:
        self._db.executemany(
            "INSERT INTO images VALUES (?, ?, ?) "
            "ON CONFLICT (key, page) DO UPDATE SET facts = excluded.facts",
            ((key, page, checksum) for key, checksum in seen.items()),
        )
        keys = [(key,) for key in seen]
        if self._one("SELECT 1 FROM images WHERE page = ? LIMIT 1", NO_PAGE):
            self._db.executemany(f"DELETE FROM images WHERE key = ? AND page = {NO_PAGE:d}", keys)
        if self._has_old:
            self._db.executemany("DELETE FROM old WHERE key = ?", keys)

    def begin_page_update(self, page: int) -> None:
        """Remember the page's current images. Those that `add` does not see again have been removed
        from the page."""
        self._has_old = bool(self._one("SELECT 1 FROM images WHERE page = ? LIMIT 1", page))
        if self._has_old:
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS old (key INTEGER PRIMARY KEY)")
            self._db.execute("DELETE FROM old")
            self._db.execute("INSERT INTO old SELECT key FROM images WHERE page = ?", (page,))

    def end_page_update(self, page: int) -> None:
        """Remove the page from images that are no longer on it. Images on no other page have
        vanished."""
        if not self._has_old:
            return
        self._db.execute(
            "DELETE FROM images WHERE page = ? AND key IN (SELECT key FROM old)", (page,)
        )
        self._db.execute(
            "INSERT INTO images SELECT key, ?, 0 FROM old "
            "WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.key = old.key)",
            (NO_PAGE,),
        )
        self._db.execute("DELETE FROM old")
        self._has_old = False

    # the manifest

    def rewrite_changed_rows(self) -> int:
        """Rewrite the manifest with the new metadata of changed rows, in place and with the times
        they were found. Return their number. Call it outside of a transaction."""
        if not self._one("SELECT 1 FROM revised LIMIT 1"):
            return 0
        count = 0
        with self._manifest.open("rb") as lines, atomic_file(self._manifest) as file:
            for line in filter(bytes.strip, lines):
                key, page, _ = self._identify(line)
                revised = revised_line(self._db, key, page, line)
                count += revised is not None
                file.write(line if revised is None else revised)
        replaced, self._rows = self._rows, JsonlAppender(self._manifest)
        replaced.close()
        with transaction(self._db):
            self._remember(self.count())
            self._db.execute("DELETE FROM revised")
        return count

    def _remember(self, rows: int, offset: int | None = None) -> None:
        stat = self._manifest.stat()
        end = stat.st_size if offset is None else offset
        self.put("rows", rows)
        self.put("offset", end)
        self.put("mtime", stat.st_mtime_ns)
        self.put("tail", tail_digest(self._manifest, end))

    def catch_up(self) -> CatchUpResult:
        """Read the rows of the manifest that are not in the index: the last ones, written by an
        interrupted crawl or an import, or the whole file if it was replaced."""
        offset, stat = int(self.get("offset") or 0), self._manifest.stat()
        same = (
            stat.st_size >= offset
            and (stat.st_size > offset or offset == 0 or stat.st_mtime_ns == self.get("mtime"))
            and (offset == 0 or tail_digest(self._manifest, offset) == self.get("tail"))
        )
        if same:
            return CatchUpResult(rows=self._ingest(offset) if stat.st_size > offset else 0)
        return self._reread()

    def _ingest(self, offset: int) -> int:
        """Add the rows from `offset` to the index. Return the number of new rows."""
        added = 0
        with self._manifest.open("rb") as file:
            file.seek(offset)
            for lines in batches(file):
                offset += sum(map(len, lines))
                with transaction(self._db):
                    new = self._learn(lines)
                    self._remember(self.count() + new, offset)
                self.merge_if_many()
                added += new
        self.merge()  # so that `images` has the page of each
        return added

    def _learn(self, lines: Iterable[bytes]) -> int:
        added = 0
        for key, page, checksum in (self._identify(line) for line in lines if line.strip()):
            if self._page_of(key) is None:
                self._db.execute(
                    "INSERT INTO recent VALUES "
                    f"(?, ifnull((SELECT id FROM pages WHERE url = ?), {EXTERNAL}), ?)",
                    (key, page, checksum),
                )
                self._recent.add(key)
                added += 1
        return added

    def _identify(self, line: bytes) -> tuple[int, str, int]:
        row = parse_line(self._manifest, line)
        return key_number(row.key), row.page, row_checksum(row)

    def _reread(self) -> CatchUpResult:
        """Rebuild the index from the manifest. Queue the pages of lost rows again."""
        added = 0
        self._db.execute("CREATE TEMP TABLE present (key INTEGER PRIMARY KEY)")
        with self._manifest.open("rb") as file:
            for lines in batches(file):
                with transaction(self._db):
                    added += self._learn(lines)
                    keys = ((self._identify(line)[0],) for line in lines if line.strip())
                    self._db.executemany("INSERT OR IGNORE INTO present VALUES (?)", keys)
                self.merge_if_many()
            end = file.tell()
        self.merge()
        # The manifest is recorded last: after a kill before this, the next run starts again.
        absent = "FROM images WHERE key NOT IN (SELECT key FROM present)"
        with transaction(self._db):
            lost = self._one(f"SELECT count(DISTINCT key) {absent}")
            again = self._db.execute(
                "UPDATE pages SET state = 'new', etag = NULL, last_modified = NULL, digest = NULL "
                f"WHERE id IN (SELECT page {absent}) AND state = 'done'"
            ).rowcount
            self._db.execute(f"DELETE {absent}")
            self._remember(self._one("SELECT count(*) FROM present"), end)
        self._db.execute("DROP TABLE present")
        return CatchUpResult(added, lost, again)

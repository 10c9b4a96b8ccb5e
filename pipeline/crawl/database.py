"""The SQLite file of the crawl state."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, depth INTEGER NOT NULL,
    context TEXT NOT NULL, state TEXT NOT NULL, etag TEXT, last_modified TEXT, digest TEXT,
    fetched TEXT, result TEXT
);
CREATE INDEX IF NOT EXISTS pages_state ON pages (state, id);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file. One of another version is replaced by an empty one."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16000;"
            "PRAGMA temp_store = FILE; PRAGMA journal_size_limit = 16000000;"
        )
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            # New, or of another version: start again. The manifest still lists the images.
            for table in ("meta", "pages", "images", "recent", "revised"):
                db.execute(f"DROP TABLE IF EXISTS {table}")
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db

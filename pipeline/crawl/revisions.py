"""Changes of manifest rows that the crawl has seen, in the table `revised` until the manifest is
rewritten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from pipeline.contract import ManifestRow

_OPTIONAL: dict[str, Any] = {"boxes": [], "page_opt_out": []}
"""The members that a row has only if they are not empty."""

_ANY_PAGE = "*"
"""In place of the URL of a page: the opt-out of an image's pages, whichever its row names."""

_OPTED_OUT = 0
"""In place of the checksum: the page opts out. No row has this checksum, so that the row is revised
when the page can be read again."""

_REVISIONS = f"""
SELECT row FROM revised WHERE key = :key AND (page = :page OR page = '{_ANY_PAGE}' AND NOT EXISTS (
    SELECT 1 FROM images WHERE key = :key AND page > 0 AND facts != {_OPTED_OUT:d}
)) ORDER BY page = '{_ANY_PAGE}'
"""


def note_revision(
    db: sqlite3.Connection, key: int, page: int, checksum: int, row: ManifestRow
) -> None:
    """Note the new metadata of an image if the page had others before."""
    before = db.execute(
        "SELECT facts FROM images WHERE key = ? AND page = ?", (key, page)
    ).fetchone()
    if before is not None and before[0] != checksum:
        text = json.dumps({**_OPTIONAL, **row.to_json()}, ensure_ascii=False)
        db.execute("REPLACE INTO revised VALUES (?, ?, ?)", (key, row.page, text))


def note_opt_out(db: sqlite3.Connection, page: int, signals: Sequence[str]) -> None:
    """Note the opt-out signals of a page for its images."""
    db.execute("UPDATE images SET facts = ? WHERE page = ?", (_OPTED_OUT, page))
    text = json.dumps({"page_opt_out": list(signals)})
    db.execute(
        "REPLACE INTO revised SELECT key, ?, ? FROM images WHERE page = ?", (_ANY_PAGE, text, page)
    )


def revised_line(db: sqlite3.Connection, key: int, page: str, line: bytes) -> bytes | None:
    """Return a line of the manifest with the changes of its row; None if it has not changed. The
    opt-outs of a page do not count while another page with the image does not opt out."""
    old: dict[str, Any] = json.loads(line)
    new = old
    for (text,) in db.execute(_REVISIONS, {"key": key, "page": page}):
        merged = {**new, **json.loads(text), "found": old.get("found", "")}
        new = {name: value for name, value in merged.items() if value or name not in _OPTIONAL}
    return None if new == old else json.dumps(new, ensure_ascii=False).encode() + b"\n"

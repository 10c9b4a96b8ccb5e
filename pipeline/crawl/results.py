"""Helpers of the crawl: results of pages as JSON, digests, pages to follow, log lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from pipeline.crawl.page import STAGE
from pipeline.crawl.state import CrawlPage, is_chunk
from pipeline.events import EventLog
from pipeline.sources import (
    FoundImage,
    Notes,
    PageRequest,
    PageResult,
    Source,
)
from pipeline.web.local_files import SCHEME

_LIMITS = ("max_pages", "max_images")
_ADDED = frozenset(("max_unproductive_pages", "allow_outside_links"))
"""Options that earlier versions did not have; at their defaults they do not affect the digest."""

_CHAIN = "chain"
"""Key in the context of a next page: the number of images before the page that links to it, and the
number of consecutive pages of the list without a new image."""

_LOGGED_REASONS = frozenset((
    "template", "bad_entry", "bad_line", "bad_url", "bad_next", "broken_xml", "too_many_entries",
    "not_utf8",
))  # fmt: skip


def host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # the fetcher reports it
        return ""


def file_stamp(path: Path) -> str | None:
    """Return a value that changes with a file or the names in a folder; None if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_size} {stat.st_mtime_ns}"


def to_text(result: PageResult) -> str:
    return json.dumps(
        {
            "rows": [found.to_json() for found in result.images],
            "follow": [asdict(replace(one, context=dict(one.context))) for one in result.follow],
            "notes": dict(result.skipped),
            "examples": getattr(result.skipped, "examples", {}),
            "bug": getattr(result.skipped, "bug", ""),
        }
    )


def from_text(text: str) -> PageResult:
    values = json.loads(text)
    notes = Notes(values["notes"])
    notes.examples = values.get("examples", {})
    notes.bug = values.get("bug", "")
    return PageResult(
        images=[FoundImage.from_json(row) for row in values["rows"]],
        follow=[PageRequest(**one) for one in values["follow"]],
        skipped=notes,
    )


def source_digest(source: Source) -> str:
    """Return a digest of the source's options, without limits: raising a limit only continues the
    crawl."""
    values = TypeAdapter(type(source)).dump_python(source, mode="json")
    options = type(source).__dataclass_fields__
    kept = {
        key: value
        for key, value in values.items()
        if key not in _LIMITS and (key not in _ADDED or value != options[key].default)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def pages_to_follow(
    page: CrawlPage,
    requests: Sequence[PageRequest],
    source: Source,
    gained: int,
    dropped: Notes,
) -> Iterator[PageRequest]:
    """Yield the pages to visit, except those that are too deep or on an unproductive list.

    Args:
        page: the page that links to them.
        gained: how many images the crawl had found before this page.
        dropped: counts the pages that are not followed, by reason.
    """
    before = page.request.context.get(_CHAIN, {"gained": -1, "idle": 0})
    idle = 0 if gained > before["gained"] else before["idle"] + 1
    for one in requests:
        if one.depth > source.max_depth:
            dropped.add("too_deep", one.url)
        elif not one.url.isascii():
            dropped.add("bad_url", one.url)
        elif one.depth > page.request.depth or one.url.startswith(SCHEME) or is_chunk(one.url):
            yield one
        elif idle >= source.max_unproductive_pages:
            dropped.add("unproductive", one.url)
        else:
            chain = {_CHAIN: {"gained": gained, "idle": idle}}
            yield replace(one, context={**one.context, **chain})


def log_skipped(
    log: EventLog, page: CrawlPage, result: PageResult, follow: list[PageRequest]
) -> None:
    """Log a page that yielded nothing, hides content behind scripts, or has unreadable entries,
    with the reasons."""
    nothing = not result.images and not follow and not is_chunk(page.request.url)
    local = page.request.url.startswith(SCHEME) and result.skipped
    if nothing or local or not _LOGGED_REASONS.isdisjoint(result.skipped):
        examples = getattr(result.skipped, "examples", {})
        images = len(result.images) if isinstance(result.images, tuple | list) else None
        log.emit(
            STAGE, "page skipped" if nothing else "page partly skipped",
            url=page.request.url, images=images, reasons=dict(result.skipped),
            **({"examples": dict(examples)} if examples else {}),
        )  # fmt: skip

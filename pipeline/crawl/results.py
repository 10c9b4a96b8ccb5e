"""What pages yield, as JSON and in the log; pages to follow; why a crawl found little."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from pipeline.crawl.page import STAGE
from pipeline.crawl.state import CHAIN, CrawlPage, is_chunk
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.sources import (
    CrawlLimits,
    FoundImage,
    Notes,
    PageRequest,
    PageResult,
    Source,
)
from pipeline.units import count_of
from pipeline.web.local_files import SCHEME

_LIMITS = ("max_pages", "max_images")
_ADDED = frozenset(("max_unproductive_pages", "allow_outside_links", "boxes"))
"""Options that earlier versions did not have; at their defaults they do not affect the digest."""

_LOGGED_REASONS = frozenset((
    "template", "bad_entry", "bad_line", "bad_url", "bad_next", "broken_xml", "too_many_entries",
    "not_utf8", "latin_1", "utf_16", "utf_32", "bad_boxes",
))  # fmt: skip


_MAX_REASONS = 8
REASONS = {
    "nothing_selected": "no element fits the recipe's selectors (try check-recipe on this page)",
    "template": "scripts build the page: use a json source for the API that they request",
    "no_image": "the entry has no image URL",
    "no_url": "the row has no URL",
    "not_http": "not an http(s) URL",
    "excluded": "excluded by source.include or source.exclude",
    "offsite": "links to other hosts (source.offsite = true follows them)",
    "too_many_canvases": "more canvases than source.max_canvases",
    "bad_entry": "the entry could not be read",
    "bad_line": "the line could not be read",
    "not_utf8": "text that is not UTF-8; invalid bytes are read as U+FFFD",
    "latin_1": "text that is not UTF-8; it is read as Latin-1",
    "utf_16": "the file is read as UTF-16",
    "utf_32": "the file is read as UTF-32",
    "bad_boxes": "the boxes are not lists of four numbers; the image is kept without them",
    "empty": "the file has no rows",
    "bad_url": "not an http(s) URL",
    "bad_next": "the URL of the next page could not be read",
    "broken_xml": "the document is damaged; only a part could be read",
    "not_text": "the value of a column is not text",
    "no_image_entries": 'a sitemap without image entries (take = "pages" reads its pages)',
    "too_many_entries": "more entries than the maximum per page",
    "outside_link": "symbolic links out of the folder (source.allow_outside_links = true takes "
    "them)",
    "broken_link": "broken symbolic links",
    "link_loop": "symbolic links to a folder around them",
    "not_a_file": "neither a regular file nor a folder",
}


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
            "examples": result.skipped.examples,
            "bug": result.skipped.bug,
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
    before = page.request.context.get(CHAIN, {"gained": -1, "idle": 0})
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
            chain = {CHAIN: {"gained": gained, "idle": idle}}
            yield replace(one, context={**one.context, **chain})


def log_skipped(
    log: EventLog, page: CrawlPage, result: PageResult, follow: list[PageRequest]
) -> None:
    """Log a page that yielded nothing, hides content behind scripts, or has unreadable entries,
    with the reasons."""
    nothing = not result.images and not follow and not is_chunk(page.request.url)
    local = page.request.url.startswith(SCHEME) and result.skipped
    if nothing or local or not _LOGGED_REASONS.isdisjoint(result.skipped):
        examples = result.skipped.examples
        images = len(result.images) if isinstance(result.images, tuple | list) else None
        log.emit(
            STAGE, "page skipped" if nothing else "page partly skipped",
            url=page.request.url, images=images, reasons=dict(result.skipped),
            **({"examples": dict(examples)} if examples else {}),
        )  # fmt: skip


@dataclass(frozen=True)
class CrawlResult:
    """The state of the crawl: `pages` read, `urls` in the manifest, `new` of them by this run,
    `failed` pages, and `vanished` images that are on no page any more."""

    pages: int
    urls: int
    new: int
    failed: int
    vanished: int


@dataclass
class CrawlAccount:
    """Counts of one run of a crawl: pages `visited`, skipped entries of pages (`notes`), links that
    were not followed (`dropped`), and `failures` by kind."""

    source: CrawlLimits
    visited: int = 0
    notes: Notes = field(default_factory=Notes)
    dropped: Notes = field(default_factory=Notes)
    failures: Notes = field(default_factory=Notes)

    def add(self, url: str, notes: Notes) -> None:
        """Count the skipped entries of the page at `url`."""
        examples = notes.examples
        for reason, count in notes.items():
            self.notes.add(reason, examples.get(reason, url), count)

    def fail(self, failed: Failure) -> None:
        """Count a page that failed."""
        last = failed.detail.strip().rpartition("\n")[2]
        self.failures.add(failed.kind, f"{failed.url}{': ' if last else ''}{last}")

    def events(
        self, pages: int, failed: int, urls: int, waiting: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events that explain the run to the user.

        Args:
            pages: number of pages read by the crawl so far.
            failed: number of failed pages.
            urls: number of rows in the manifest.
            waiting: number of pages that are queued because of a limit.
        """
        limits = {
            "too_deep": f"source.max_depth = {self.source.max_depth}",
            "unproductive": f"source.max_unproductive_pages = {self.source.max_unproductive_pages}",
            "bad_url": "",
        }
        for reason, count in self.dropped.items():
            yield (
                _DROPPED[reason],
                {"links": count, "first": self.dropped.examples[reason], "limit": limits[reason]},
            )
        if not self.visited:
            yield "no page requested", {"why": self._why_nothing_requested(pages, failed, waiting)}
        elif not urls:
            yield "no image found", {"why": "; ".join(self._why_nothing_found())}

    def _why_nothing_requested(self, pages: int, failed: int, waiting: int) -> str:
        if waiting:
            return (
                f"{count_of(waiting, 'page')} in the queue, but source.max_pages "
                f"({self.source.max_pages:,}) or source.max_images ({self.source.max_images}) is "
                "reached; raise it"
            )
        known = (
            f"every page was visited before ({count_of(pages, 'page')}); crawl --refresh visits "
            "them again"
        )
        return f"{known}; {failed:,} failed, and retry visits those" if failed else known

    def _why_nothing_found(self) -> Iterator[str]:
        read = self.visited - sum(self.failures.values())
        yield f"{read:,} of {count_of(self.visited, 'page')} could be read"
        for kind, count in list(self.failures.items())[:_MAX_REASONS]:
            yield f"{count:,} failed with {kind}, first {self.failures.examples[kind]}"
        for reason, count in list(self.notes.items())[:_MAX_REASONS]:
            example = self.notes.examples.get(reason)
            first = f", first {example}" if example else ""
            yield f"{count:,} × {reason}: {REASONS.get(reason, reason)}{first}"


_DROPPED = {
    "too_deep": "links deeper than max_depth not followed",
    "unproductive": "list not followed further: its last pages brought no new image",
    "bad_url": "links not followed: not an http(s) URL",
}

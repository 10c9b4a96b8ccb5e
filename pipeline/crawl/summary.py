"""Explains what a crawl skipped, and why it found little or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import Failure
from pipeline.sources import CrawlLimits, Notes

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

    def add(self, url: str, notes: Mapping[str, int]) -> None:
        """Count the skipped entries of the page at `url`."""
        examples = getattr(notes, "examples", {})
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
                f"{waiting:,} pages are queued, but source.max_pages ({self.source.max_pages:,}) "
                f"or source.max_images ({self.source.max_images}) is reached; raise it"
            )
        known = f"all {pages:,} pages were visited before; crawl --refresh visits them again"
        return f"{known}; {failed:,} failed, and retry visits those" if failed else known

    def _why_nothing_found(self) -> Iterator[str]:
        read = self.visited - sum(self.failures.values())
        yield f"{read:,} of {self.visited:,} pages could be read"
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

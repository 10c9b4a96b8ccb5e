"""What every adapter takes and gives: pages in, images and further pages out.

An adapter is two pure functions of its typed configuration: where to start, and what one page
holds. It neither fetches nor remembers; the crawl stage does. So a recorded answer tests it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.config_io import STRICT
from pipeline.contract import ManifestRow, UserError, image_key
from pipeline.outside_text import safe_text
from pipeline.sources.page_terms import PageTerms
from pipeline.web.failures import internal_failure

T = TypeVar("T")
R = TypeVar("R")


MOST = 1 << 53
"""The highest limit; SQLite counts up to some 2**63."""

_EXAMPLE = 200


class Notes(dict[str, int]):
    """What was not taken from a page, counted by reason.

    `examples` holds the first example of a reason where there is one. `bug` is the traceback of the
    first entry on which the adapter itself failed, empty if there is none.
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(counts or {})
        self.examples: dict[str, str] = {}
        self.bug = ""

    def add(self, reason: str, example: object = None, count: int = 1) -> None:
        """Count one more that was not taken for this reason."""
        self[reason] = self.get(reason, 0) + count
        if example is not None and reason not in self.examples:
            self.examples[reason] = safe_text(str(example)[:_EXAMPLE])

    def merge(self, other: Mapping[str, int]) -> None:
        """Add the counts of another page's notes."""
        examples = other.examples if isinstance(other, Notes) else {}
        for reason, count in other.items():
            self.add(reason, examples.get(reason), count)

    def each(
        self,
        entries: Iterable[T],
        read: Callable[[T], Iterable[R]],
        expected: tuple[type[Exception], ...] = (RecursionError,),
    ) -> Iterator[R]:
        """What `read` gives for each of `entries`. The boundary of one entry: one that it cannot
        read is counted, and the others arrive.

        Args:
            expected: exceptions that mean a bad entry and no error of the adapter.
        """
        for entry in entries:
            try:
                yield from tuple(read(entry))
            except UserError:
                raise
            except expected as error:
                self.add("bad_entry", str(error) or type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the boundary of one entry
                self.add("bad_entry", f"{type(error).__name__}: {error}")
                self.bug = self.bug or internal_failure("", "", error).detail


@typed_dataclass(frozen=True, config=STRICT, kw_only=True)
class CrawlLimits:
    """Where a crawl ends at the latest; part of every source's configuration.

    `max_depth` counts steps of following from a start page (the next page of the same list is no
    step). Pages and images beyond the limits are not taken. A list whose next
    `max_unproductive_pages` pages bring no new image, themselves or by the pages they lead to, is
    followed no further: it may go on for ever (a calendar, a cursor that never ends).
    """

    max_pages: int = Field(default=100_000, ge=1, le=MOST)
    max_images: int | None = Field(default=None, ge=1, le=MOST)
    max_depth: int = Field(default=10, ge=0)
    max_unproductive_pages: int = Field(default=50, ge=1, le=MOST)


@dataclass(frozen=True)
class PageRequest:
    """A page to fetch: a canonical URL, or a file: URL that is read from the disk instead.

    `context` is what earlier pages know about this one (a label, a position); JSON values only.
    """

    url: str
    depth: int = 0
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A fetched page. `location` is its URL after redirects; header names are in lower case.

    `body` is empty for a file: URL, which the adapter reads by itself, and where the page was
    copied to the file `path`.
    """

    request: PageRequest
    body: bytes = b""
    location: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def url(self) -> str:
        return self.location or self.request.url


@dataclass(frozen=True)
class FoundImage:
    """One image found on a page; `url` is canonical."""

    url: str
    title: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    attribution: str = ""
    page_opt_out: tuple[str, ...] = ()

    def row(self, page: str, found: str) -> ManifestRow:
        """The manifest row of this image, found on `page` at the time `found`."""
        key = image_key(self.url)
        return ManifestRow(
            key, self.url, page, self.title, self.labels, self.license, self.attribution, found,
            page_opt_out=self.page_opt_out,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FoundImage:
        lists = {name: tuple(values.get(name, ())) for name in ("labels", "page_opt_out")}
        return cls(**{**values, **lists})


class CorruptFile(Exception):
    """A file breaks off, or goes on as something else, after rows that were good."""


@dataclass(frozen=True)
class PageResult:
    """What a page holds: images in their order, pages to go to, and what was passed over.

    `notes` counts by reason what was not taken. `problem` says in a line why the page is not of
    the form the recipe expects; then there is nothing else in the result. `terms` is what the page
    itself says about the use of its images. `rows` of a file may be an iterator over more
    than fits into memory; it raises `CorruptFile` where the file ends in the middle.
    """

    images: Iterable[FoundImage] = ()
    follow: Sequence[PageRequest] = ()
    skipped: Mapping[str, int] = field(default_factory=Notes)
    error: str = ""
    terms: PageTerms = field(default_factory=PageTerms)


Config = TypeVar("Config", bound=CrawlLimits)

LARGE_PAGE = 32 << 20
"""Bytes: what a page of data, such as JSON or a feed, may be; to read it takes less memory than to
read as much HTML."""


@dataclass(frozen=True)
class Adapter(Generic[Config]):
    """A kind of source.

    `start` gives the first pages of a configuration, `parse` what one page holds. `parse` raises
    nothing for a page it cannot read: it returns a `problem`. Where there is `copies`, pages may be
    larger than memory: they are copied to the disk, up to so many bytes, and read from there.
    `page_bytes` is how large a page may be at least, whatever the politeness allows pages of HTML.
    """

    config: type[Config]
    start: Callable[[Config], list[PageRequest]]
    parse: Callable[[Config, Page], PageResult]
    max_copy_bytes: Callable[[Config], int] | None = None
    page_bytes: Callable[[PageRequest], int] = lambda _: 0

"""The interface of adapters, which extract images and further pages from pages.

An adapter consists of two pure functions of its options: one returns the first requests, the other
parses a page. The crawl stage fetches pages and keeps the state, so an adapter can be tested with
recorded responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.config_io import STRICT
from pipeline.contract import Box, ManifestRow, UserError, image_key
from pipeline.outside_text import decode_text, safe_text
from pipeline.web.failures import internal_failure

T = TypeVar("T")
R = TypeVar("R")


MAX_LIMIT = 1 << 53
"""Maximum value of a limit; below the maximum of SQLite integers, 2**63 - 1."""

_EXAMPLE = 200


class Notes(dict[str, int]):
    """What was skipped on a page, counted by reason.

    `examples` has the first example per reason, if any. `bug` is the traceback of the first
    unexpected exception of the adapter, or empty.
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(counts or {})
        self.examples: dict[str, str] = {}
        self.bug = ""

    def add(self, reason: str, example: object = None, count: int = 1) -> None:
        """Count `count` skipped entries for a reason, with an example."""
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
        """Yield the results of `read` for all `entries`. An entry that cannot be read is counted
        and does not affect the others.

        Args:
            expected: exceptions that mean a bad entry, not a bug of the adapter.
        """
        for entry in entries:
            try:
                yield from tuple(read(entry))
            except UserError:
                raise
            except expected as error:
                self.add("bad_entry", str(error) or type(error).__name__)
            except Exception as error:  # noqa: BLE001 - errors of one entry are caught here
                self.add("bad_entry", f"{type(error).__name__}: {error}")
                self.bug = self.bug or internal_failure("", "", error).detail


def notes_on_text(body: bytes) -> Notes:
    """Return new notes, with `not_utf8` if a document is invalid in its encoding."""
    notes = Notes()
    try:
        decode_text(body, "strict")
    except ValueError as error:
        notes.add("not_utf8", error)
    return notes


@typed_dataclass(frozen=True, config=STRICT, kw_only=True)
class CrawlLimits:
    """Limits of a crawl; part of the options of every source.

    `max_depth` counts links from a start page (the next page of the same list does not count).
    Pages and images beyond the limits are ignored: at most `max_pages` pages are visited and
    `max_images` images taken (none: all). A list is not followed further after
    `max_unproductive_pages` consecutive pages without a new image on them or on pages they link to,
    because it may be endless (a calendar, a cursor).
    """

    max_pages: int = Field(default=100_000, ge=1, le=MAX_LIMIT)
    max_images: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    max_depth: int = Field(default=10, ge=0)
    max_unproductive_pages: int = Field(default=50, ge=1, le=MAX_LIMIT)


@dataclass(frozen=True)
class PageRequest:
    """A page to fetch: a canonical URL, or a file: URL that is read from the disk.

    `context` contains JSON values from earlier pages, such as a label or a position.
    """

    url: str
    depth: int = 0
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A fetched page. `location` is its URL after redirects; header names are in lower case.

    `body` is empty for a file: URL, which the adapter reads itself, and for a page that was copied
    to the disk, to `path`.
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
    """One image found on a page; `url` is canonical, `boxes` are annotated objects as in
    `ManifestRow`."""

    url: str
    title: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    attribution: str = ""
    page_opt_out: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()

    def row(self, page: str, found: str) -> ManifestRow:
        """Return the manifest row of this image, found on `page` at the time `found`."""
        key = image_key(self.url)
        return ManifestRow(
            key, self.url, page, self.title, self.labels, self.license, self.attribution, found,
            boxes=self.boxes, page_opt_out=self.page_opt_out,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FoundImage:
        lists = {name: tuple(values.get(name, ())) for name in ("labels", "page_opt_out")}
        boxes = tuple(map(tuple, values.get("boxes", ())))
        return cls(**{**values, **lists, "boxes": boxes})


@dataclass(frozen=True)
class PageTerms:
    """Meta elements as (name in lower case, content), links as (rel, type, href), and the texts of
    embedded RSL licences."""

    metas: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str, str], ...] = ()
    licenses: tuple[str, ...] = ()


class CorruptFile(Exception):
    """A file ends early or changes its format after valid rows."""


@dataclass(frozen=True)
class PageResult:
    """The content of a page: images in order, pages to follow, and what was skipped.

    `skipped` counts skipped entries by reason. `error` says why the page does not have the format
    that the recipe expects; all other fields are then empty. `terms` are the terms of use in the
    page. `images` of a file may be an iterator over more than fits into memory; it raises
    `CorruptFile` if the file ends early.
    """

    images: Iterable[FoundImage] = ()
    follow: Sequence[PageRequest] = ()
    skipped: Notes = field(default_factory=Notes)
    error: str = ""
    terms: PageTerms = field(default_factory=PageTerms)


Config = TypeVar("Config", bound=CrawlLimits)

LARGE_PAGE = 32 << 20
"""Maximum size in bytes of a page of data, such as JSON or a feed; parsing it takes less memory
than parsing HTML of the same size."""


@dataclass(frozen=True)
class Adapter(Generic[Config]):
    """A kind of source.

    `start` returns the first requests, and `parse` the content of one page. For a page that cannot
    be parsed, `parse` returns an `error` instead of raising. If `max_copy_bytes` is set, pages may
    be larger than memory: they are copied to the disk, up to this size. `page_bytes` returns the
    maximum size of a page; it applies if it exceeds the limit in the politeness options.
    """

    config: type[Config]
    start: Callable[[Config], list[PageRequest]]
    parse: Callable[[Config, Page], PageResult]
    max_copy_bytes: Callable[[Config], int] | None = None
    page_bytes: Callable[[PageRequest], int] = lambda _: 0

"""What every adapter takes and gives: pages in, images and further pages out.

An adapter is two pure functions of its typed configuration: where to start, and what one page
holds. It neither fetches nor remembers; the crawl stage does. So a recorded answer tests it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.contract import ManifestRow, image_key
from pipeline.sources.page_terms import PageTerms
from pipeline.typed import STRICT


@typed_dataclass(frozen=True, config=STRICT, kw_only=True)
class Limits:
    """Where a crawl ends at the latest; part of every source's configuration.

    `max_depth` counts steps of following from a start page (the next page of the same list is no
    step). Pages and images beyond the limits are not taken.
    """

    max_pages: int = Field(default=100_000, ge=1)
    max_images: int | None = Field(default=None, ge=1)
    max_depth: int = Field(default=10, ge=0)


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
class Found:
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
    def from_json(cls, values: dict[str, Any]) -> Found:
        lists = {name: tuple(values.get(name, ())) for name in ("labels", "page_opt_out")}
        return cls(**{**values, **lists})


class BrokenFile(Exception):
    """A file breaks off, or goes on as something else, after rows that were good."""


@dataclass(frozen=True)
class PageResult:
    """What a page holds: images in their order, pages to go to, and what was passed over.

    `notes` counts by reason what was not taken. `problem` says in a line why the page is not of
    the form the recipe expects; then there is nothing else in the result. `terms` is what the page
    itself says about the use of its images. `rows` of a file may be an iterator over more
    than fits into memory; it raises `BrokenFile` where the file ends in the middle.
    """

    rows: Iterable[Found] = ()
    follow: Sequence[PageRequest] = ()
    notes: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""
    terms: PageTerms = field(default_factory=PageTerms)


Config = TypeVar("Config", bound=Limits)

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
    copies: Callable[[Config], int] | None = None
    page_bytes: Callable[[PageRequest], int] = lambda _: 0

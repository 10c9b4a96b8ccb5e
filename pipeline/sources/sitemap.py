"""Sitemaps: indexes, lists of pages, and image entries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.outside_text import decode_text
from pipeline.sources import html
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.interface import Adapter, FoundImage, Notes, Page, PageRequest, PageResult
from pipeline.sources.text_selectors import clean
from pipeline.sources.url_rules import is_allowed
from pipeline.sources.xml import (
    MAX_UNPACKED,
    Element,
    children,
    entries_of,
    name_of,
    read_xml,
    starts_with,
    text_of,
    unpack,
)
from pipeline.web.urls import canonical_url


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SitemapSource(HtmlSource):
    """Sitemaps (also gzipped, plain text, or named by robots.txt) and the pages behind them.

    `take` states where the images are: on the `pages`, which are parsed like those of an html
    source (with all of its keys), or in the `sitemap` itself (its image entries). Sitemaps that a
    sitemap names may be on any host.
    """

    kind: Literal["sitemap"] = "sitemap"  # type: ignore[assignment]
    take: Literal["pages", "sitemap"] = "pages"


def start(config: SitemapSource) -> list[PageRequest]:
    """Return the requests for the first sitemaps."""
    return [
        PageRequest(url, 0, {"role": "sitemap"}) for url in map(canonical_url, config.start) if url
    ]


def parse(config: SitemapSource, page: Page) -> PageResult:
    """Parse a sitemap, or a page found through one."""
    if page.request.context.get("role") != "sitemap":
        return html.parse(config, page)
    body, problem = unpack(page.body)
    if not starts_with(body, "<"):
        return PageResult(error=problem) if problem else _plain(config, page, body)
    root, problem = read_xml(page.body)
    if root is None:
        return PageResult(error=problem)
    notes = Notes()
    if problem:
        notes.add("broken_xml", problem)
    if name_of(root) == "sitemapindex":
        entries = entries_of(children(root, "sitemap"), notes)
        return PageResult(
            follow=_sitemaps(config, page, [text_of(one, "loc") for one in entries], notes),
            skipped=notes,
        )
    if name_of(root) == "urlset":
        return _urlset(config, page, root, notes)
    return PageResult(error=f"<{name_of(root)}> instead of a sitemap")


def _sitemaps(
    config: SitemapSource, page: Page, urls: list[str], notes: Notes
) -> list[PageRequest]:
    """Return the sitemaps in an index. Only indexes that are not start pages increase the depth."""
    is_start = page.request.url in {canonical_url(url) for url in config.start}
    depth = page.request.depth + (0 if is_start else 1)
    found = dict.fromkeys(_canonical(page, urls, notes))
    return [PageRequest(url, depth, {"role": "sitemap"}) for url in found]


def _canonical(page: Page, urls: list[str], notes: Notes) -> Iterator[str]:
    for text in filter(None, urls):
        url = canonical_url(text, page.url)
        if url:
            yield url
        else:
            notes.add("bad_url", text)


def _plain(config: SitemapSource, page: Page, body: bytes) -> PageResult:
    lines = [line.strip() for line in decode_text(body).splitlines()]
    named = [
        line.partition(":")[2].strip() for line in lines if line.lower().startswith("sitemap:")
    ]
    notes = Notes()
    if named:
        return PageResult(follow=_sitemaps(config, page, named, notes), skipped=notes)
    urls = [line for line in lines if line.startswith(("http://", "https://"))]
    if not urls:
        return PageResult(error="neither XML nor a list of URLs")
    return PageResult(follow=_pages(config, page, urls, notes), skipped=notes)


def _pages(config: SitemapSource, page: Page, urls: list[str], notes: Notes) -> list[PageRequest]:
    found = dict.fromkeys(_canonical(page, urls, notes))
    followed = filter(html.page_filter(config, (*config.start, page.url), notes), found)
    return [PageRequest(url, page.request.depth + 1) for url in followed]


def _urlset(config: SitemapSource, page: Page, root: Element, notes: Notes) -> PageResult:
    entries = entries_of(children(root, "url"), notes)
    if config.take == "pages":
        urls = [text_of(one, "loc") for one in entries]
        return PageResult(follow=_pages(config, page, urls, notes), skipped=notes)
    found: dict[str, FoundImage] = {}
    for one in notes.each(entries, partial(_images, config, page, notes)):
        found.setdefault(one.url, one)
    if not found and not notes:
        notes.add("no_image_entries")
    return PageResult(list(found.values()), skipped=notes)


def _images(
    config: SitemapSource, page: Page, notes: Notes, entry: Element
) -> Iterator[FoundImage]:
    """Yield the images of the entry of one page."""
    for image in children(entry, "image", "sitemap-image"):
        text = text_of(image, "loc")
        url = canonical_url(text, page.url)
        if url is None:
            notes.add("bad_url", text)
        elif not is_allowed(url, config.include, config.exclude):
            notes.add("excluded", url)
        else:
            title = text_of(image, "title") or text_of(image, "caption")
            yield FoundImage(url, clean(title), (), clean(text_of(image, "license")))


def _page_bytes(request: PageRequest) -> int:
    return MAX_UNPACKED if request.context.get("role") == "sitemap" else 0


SITEMAP = Adapter(SitemapSource, start, parse, page_bytes=_page_bytes)

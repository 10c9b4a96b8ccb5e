"""Sitemaps: indexes of sitemaps, lists of pages, and the images named in them."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from pipeline.sources import html
from pipeline.sources.interface import Adapter, Found, Page, PageRequest, PageResult
from pipeline.sources.picks import clean
from pipeline.sources.url_rules import admitted
from pipeline.sources.xml import MAX_UNPACKED, Element, children, name_of, read_xml, text_of
from pipeline.typed import STRICT
from pipeline.web.urls import canonical_url


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SitemapSource(html.HtmlSource):
    """Sitemaps (also gzipped, plain text, or a robots.txt that names them) and the pages behind.

    `take` says where the images are: on the `pages`, which are read as an html source reads them
    (all of its keys hold), or in the `sitemap` itself (its image entries).
    """

    kind: Literal["sitemap"] = "sitemap"  # type: ignore[assignment]
    take: Literal["pages", "sitemap"] = "pages"


def start(config: SitemapSource) -> list[PageRequest]:
    """The first sitemaps."""
    return [
        PageRequest(url, 0, {"role": "sitemap"}) for url in map(canonical_url, config.start) if url
    ]


def parse(config: SitemapSource, page: Page) -> PageResult:
    """What a sitemap, or a page found through one, holds."""
    if page.request.context.get("role") != "sitemap":
        return html.parse(config, page)
    text = page.body.lstrip()[:1]
    if page.body[:2] != b"\x1f\x8b" and text not in (b"<", b"\xef"):
        return _plain(config, page)
    root, problem = read_xml(page.body)
    if root is None:
        return PageResult(problem=problem)
    if name_of(root) == "sitemapindex":
        return PageResult(follow=_sitemaps(page, [text_of(one, "loc") for one in root]))
    if name_of(root) == "urlset":
        return _urlset(config, page, root)
    return PageResult(problem=f"<{name_of(root)}> where a sitemap was expected")


def _sitemaps(page: Page, urls: list[str]) -> list[PageRequest]:
    found = dict.fromkeys(url for text in urls if text and (url := canonical_url(text, page.url)))
    return [PageRequest(url, page.request.depth, {"role": "sitemap"}) for url in found]


def _plain(config: SitemapSource, page: Page) -> PageResult:
    lines = [line.strip() for line in page.body.decode("utf-8-sig", "replace").splitlines()]
    named = [
        line.partition(":")[2].strip() for line in lines if line.lower().startswith("sitemap:")
    ]
    if named:
        return PageResult(follow=_sitemaps(page, named))
    urls = [line for line in lines if line.startswith(("http://", "https://"))]
    if not urls:
        return PageResult(problem="neither XML nor a list of URLs")
    return PageResult(follow=_pages(config, page, urls))


def _pages(config: SitemapSource, page: Page, urls: list[str]) -> list[PageRequest]:
    found = dict.fromkeys(
        url
        for text in urls
        if text
        and (url := canonical_url(text, page.url))
        and admitted(url, config.follow_include, config.follow_exclude)
    )
    return [PageRequest(url, page.request.depth + 1) for url in found]


def _urlset(config: SitemapSource, page: Page, root: Element) -> PageResult:
    entries = list(children(root, "url"))
    if config.take == "pages":
        return PageResult(follow=_pages(config, page, [text_of(one, "loc") for one in entries]))
    notes: dict[str, int] = {}
    found: dict[str, Found] = {}
    for entry in entries:
        for image in children(entry, "image", "sitemap-image"):
            url = canonical_url(text_of(image, "loc"), page.url)
            if url is None or url in found:
                continue
            if not admitted(url, config.include, config.exclude):
                notes["excluded"] = notes.get("excluded", 0) + 1
                continue
            title = text_of(image, "title") or text_of(image, "caption")
            found[url] = Found(url, clean(title), (), clean(text_of(image, "license")))
    if not found and not notes:
        notes["no_image_entries"] = 1
    return PageResult(list(found.values()), notes=notes)


def _page_bytes(request: PageRequest) -> int:
    return MAX_UNPACKED if request.context.get("role") == "sitemap" else 0


SITEMAP = Adapter(SitemapSource, start, parse, page_bytes=_page_bytes)

"""RSS and Atom feeds, with Media RSS, enclosures and paging (RFC 5005)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Literal

from bs4 import BeautifulSoup
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.sources import html
from pipeline.sources.candidates import (
    FULL,
    LINKED,
    SHOWN,
    Candidate,
    candidates,
    largest_candidate,
)
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.image_urls import looks_like_image
from pipeline.sources.interface import (
    LARGE_PAGE,
    Adapter,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.text_selectors import clean
from pipeline.sources.url_rules import is_allowed
from pipeline.sources.xml import (
    Element,
    base_of,
    children,
    entries_of,
    markup_of,
    name_of,
    read_xml,
    text_of,
)
from pipeline.web.urls import canonical_url


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FeedSource(HtmlSource):
    """RSS or Atom feeds.

    `take` states where the images are: in the `feed` (media:content or enclosures of an entry, or
    else images in its text), with the entry's title, categories, licence and credit; or on the
    `pages` of the entries, which are parsed like those of an html source (with all of its keys).
    Further pages of a feed are found by rel=next links, on any host.
    """

    kind: Literal["feed"] = "feed"  # type: ignore[assignment]
    take: Literal["feed", "pages"] = "feed"


def start(config: FeedSource) -> list[PageRequest]:
    """Return the requests for the feeds."""
    return [
        PageRequest(url, 0, {"role": "feed"}) for url in map(canonical_url, config.start) if url
    ]


def parse(config: FeedSource, page: Page) -> PageResult:
    """Parse a feed, or the page of an entry."""
    if page.request.context.get("role") != "feed":
        return html.parse(config, page)
    root, problem = read_xml(page.body)
    if root is None:
        return PageResult(error=problem)
    if name_of(root) not in ("rss", "RDF", "feed"):
        return PageResult(error=f"<{name_of(root)}> instead of a feed")
    notes = Notes()
    if problem:
        notes.add("broken_xml", problem)
    channel = next(children(root, "channel"), root)
    owners = (channel, "item"), (root, "item"), (root, "entry")
    every = chain.from_iterable(children(owner, name) for owner, name in owners)
    entries = list(dict.fromkeys(entries_of(every, notes)))
    following = _next(page, channel)
    if config.take == "pages":
        urls = dict.fromkeys(notes.each(entries, partial(_entry_page, page, notes)))
        followed = filter(html.page_filter(config, (*config.start, page.url), notes), urls)
        follow = [PageRequest(url, page.request.depth + 1) for url in followed]
        return PageResult(follow=[*follow, *following], skipped=notes)
    found: dict[str, FoundImage] = {}
    license = _license(channel)
    for one in notes.each(entries, partial(_found, config, page, license, notes)):
        found.setdefault(one.url, one)
    return PageResult(list(found.values()), following, notes)


def _found(
    config: FeedSource, page: Page, license: str, notes: Notes, entry: Element
) -> Iterator[FoundImage]:
    """Yield the images of one entry."""
    for url in _images(config, page, entry, notes):
        yield _describe(entry, license, url)


def _next(page: Page, channel: Element) -> list[PageRequest]:
    for link in children(channel, "link"):
        is_next = link.get("rel") == "next"
        url = canonical_url(link.get("href") or "", base_of(link, page.url)) if is_next else None
        if url and url != page.request.url:
            return [PageRequest(url, page.request.depth, {"role": "feed"})]
    return []


def _link(entry: Element) -> str:
    for link in children(entry, "link"):
        if link.get("href") and link.get("rel", "alternate") == "alternate":
            return str(link.get("href"))
    return text_of(entry, "link")


def _entry_page(page: Page, notes: Notes, entry: Element) -> Iterator[str]:
    """Yield the URL of the page of one entry, if it is valid."""
    text = _link(entry)
    url = canonical_url(text, base_of(entry, page.url)) if text else None
    if url:
        yield url
    elif text:
        notes.add("bad_url", text)


def _images(config: FeedSource, page: Page, entry: Element, notes: Notes) -> list[str]:
    """Return the URLs of an entry's images: one per media:group or media:content, or else one per
    enclosure, or else one per image in its text."""
    found = []
    element, groups = entry, _media(entry) or _enclosures(entry)
    if not groups:
        element, groups = _in_text(config, entry)
    base = base_of(element, page.url)
    for offers in groups:
        url = largest_candidate(offers, base, notes)
        if url and not is_allowed(url, config.include, config.exclude):
            notes.add("excluded", url)
        elif url:
            found.append(url)
    return found


def _media(entry: Element) -> list[list[Candidate]]:
    groups = [_contents(group) for group in children(entry, "group", "mrss")]
    groups += [[one] for one in _contents(entry)]
    return [group for group in groups if group]


def _contents(parent: Element) -> list[Candidate]:
    found = []
    for content in children(parent, "content", "mrss"):
        url, kind = content.get("url") or "", content.get("type") or ""
        if (content.get("medium") or "").lower() == "image" or _is_image(url, kind):
            width = content.get("width") or ""
            found.append(Candidate(url, FULL, float(width) if width.isdecimal() else 0.0))
    return found


def _enclosures(entry: Element) -> list[list[Candidate]]:
    links = [
        (one.get("href") or "", one.get("type") or "")
        for one in children(entry, "link")
        if one.get("rel") == "enclosure"
    ]
    links += [(one.get("url") or "", one.get("type") or "") for one in children(entry, "enclosure")]
    return [[Candidate(url, LINKED)] for url, kind in links if _is_image(url, kind)]


def _is_image(url: str, kind: str) -> bool:
    """Return True if the media type `kind` is that of an image, or `url` if there is no type."""
    return kind.lower().startswith("image/") or (not kind and looks_like_image(url))


def _in_text(config: FeedSource, entry: Element) -> tuple[Element, list[list[Candidate]]]:
    """Return the images in the text of an entry, or its thumbnail, and the element they are in."""
    for name in ("encoded", "content", "description", "summary"):
        for element in islice(children(entry, name), 1):
            text = markup_of(element)
            images = BeautifulSoup(text, "lxml").select("img") if "<" in text else ()
            if images:
                return element, [candidates(image, config.full_size) for image in images]
    for thumbnail in children(entry, "thumbnail", "mrss"):
        return entry, [[Candidate(thumbnail.get("url") or "", SHOWN)]]
    return entry, []


def _license(scope: Element) -> str:
    links = [one.get("href") for one in children(scope, "link") if one.get("rel") == "license"]
    return text_of(scope, "license") or (links[0] if links else "") or ""


def _describe(entry: Element, license: str, url: str) -> FoundImage:
    """Return the image at `url`; `license` is the licence of the whole feed."""
    labels = [
        clean(one.get("term") or "".join(one.itertext())) for one in children(entry, "category")
    ]
    author = next((text_of(one, "name") for one in children(entry, "author")), "")
    credit = text_of(entry, "credit", "mrss") or text_of(entry, "creator") or author
    return FoundImage(
        url,
        clean(text_of(entry, "title")),
        tuple(label for label in labels if label),
        clean(_license(entry) or license),
        clean(credit or text_of(entry, "author")),
    )


def _page_bytes(request: PageRequest) -> int:
    return LARGE_PAGE if request.context.get("role") == "feed" else 0


FEED = Adapter(FeedSource, start, parse, page_bytes=_page_bytes)

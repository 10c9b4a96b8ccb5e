"""HTML galleries: pages and images selected by CSS selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import soupsieve
from bs4 import BeautifulSoup, Tag

from pipeline.sources.candidates import (
    Candidate,
    attribute_candidates,
    candidates,
    closest,
    largest_candidate,
)
from pipeline.sources.html_options import Follow, HtmlSource
from pipeline.sources.image_urls import looks_like_image, rejection_reason
from pipeline.sources.interface import Adapter, FoundImage, Notes, Page, PageRequest, PageResult
from pipeline.sources.script_images import attribute_images, script_images
from pipeline.sources.soup import make_soup, page_base, page_terms
from pipeline.sources.text_selectors import TextReader, TextSelector, attribute, clean
from pipeline.sources.url_rules import is_allowed
from pipeline.web.urls import canonical_url

_OTHER_SCHEME = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def start(config: HtmlSource) -> list[PageRequest]:
    """Return the requests for the start pages."""
    return [PageRequest(url) for url in map(canonical_url, config.start) if url]


def parse(config: HtmlSource, page: Page) -> PageResult:
    """Parse an HTML page: its images and the pages it links to."""
    problem = not_html(page)
    if problem:
        return PageResult(error=problem)
    notes: dict[str, int] = {}
    return parse_soup(config, make_soup(page, notes), page, notes)


def parse_soup(
    config: HtmlSource, soup: BeautifulSoup, page: Page, notes: dict[str, int]
) -> PageResult:
    """Extract images and links from a parsed `page`; `notes` counts skipped entries."""
    base = page_base(soup, page.url)
    rows = _images(config, soup, page, base, notes)
    return PageResult(
        images=rows,
        follow=_links(config, soup, page.request, base, notes, {one.url for one in rows}),
        skipped=Notes(notes),
        terms=page_terms(soup),
    )


def not_html(page: Page) -> str:
    """Return why a response is not an HTML page; empty if it may be one."""
    kind = page.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not re.search(r"html|xml|text/plain", kind):
        return f"{kind} instead of a page"
    if b"<" not in page.body:
        return "no HTML in the response" if page.body else "an empty response"
    return ""


def _images(
    config: HtmlSource, soup: BeautifulSoup, page: Page, base: str, notes: dict[str, int]
) -> list[FoundImage]:
    found: dict[str, FoundImage] = {}
    reader = TextReader(soup, page.url)
    license = _license_link(soup)
    for item, offers in _offers(config, soup, notes):
        url = largest_candidate(offers, base, notes)
        if url is None or url in found:
            continue
        if not is_allowed(url, config.include, config.exclude):
            notes["excluded"] = notes.get("excluded", 0) + 1
            continue
        found[url] = _describe(config, item, reader, page.request.context, url, license)
    if not found and not notes:
        notes["nothing_selected"] = 1
    return list(found.values())


def _offers(
    config: HtmlSource, soup: BeautifulSoup, notes: dict[str, int]
) -> Iterator[tuple[Tag, list[Candidate]]]:
    """Yield the item and candidates of each image."""
    one: list[Candidate] = []
    for item, tag in _image_tags(config, soup):
        groups = _groups(config, tag, notes)
        if config.one_per_page:
            one += [candidate for group in groups for candidate in group]
        else:
            yield from ((item, group) for group in groups)
    if one:
        yield soup, one


def _groups(config: HtmlSource, tag: Tag, notes: dict[str, int]) -> list[list[Candidate]]:
    """Return the candidates of each image in one element."""
    if config.image.attribute:
        return [attribute_candidates(tag, config.image.attribute, config.image.match)]
    if tag.name == "script":
        return script_images(tag, notes)
    return attribute_images(tag) or [candidates(tag, config.full_size)]


def _image_tags(config: HtmlSource, soup: BeautifulSoup) -> Iterator[tuple[Tag, Tag]]:
    if config.item is None:
        yield from ((tag, tag) for tag in soup.select(config.image.select))
        return
    for item in soup.select(config.item):
        tags = item.select(config.image.select)
        yield from ((item, tag) for tag in tags)


def _describe(
    config: HtmlSource,
    item: Tag,
    reader: TextReader,
    context: Mapping[str, Any],
    url: str,
    license: str,
) -> FoundImage:
    """Return the image at `url` with its metadata; `license` is the licence of the page."""

    def text(what: TextSelector | None) -> str:
        return " ".join(reader.read(what, item, url))

    labels = list(context.get("labels", ()))
    for what in config.labels:
        labels += reader.read(what, item, url) or [""]
    while labels and not labels[-1]:
        labels.pop()
    title = text(config.title) if config.title else _own_title(item)
    return FoundImage(
        url=url,
        title=title or context.get("title", ""),
        labels=tuple(labels),
        license=text(config.license) if config.license else _license_link(item) or license,
        attribution=text(config.attribution),
    )


def _own_title(item: Tag) -> str:
    """Return the caption of the figure around the item, or else the image's alternative text."""
    figure = closest(item, ("figure",))
    caption = figure.find("figcaption") if figure is not None else None
    if caption is not None:
        text = clean(caption.get_text(" "))
        if text:
            return text
    img = item if item.name == "img" else item.select_one("img")
    return clean(attribute(img, "alt") or attribute(img, "title")) if img else ""


def _license_link(scope: Tag) -> str:
    """Return the target of the first `rel=license` link."""
    link = scope.select_one("a[rel~=license][href], link[rel~=license][href]")
    return clean(attribute(link, "href")) if link is not None else ""


def _links(
    config: HtmlSource,
    soup: BeautifulSoup,
    request: PageRequest,
    base: str,
    notes: dict[str, int],
    images: set[str],
) -> list[PageRequest]:
    """Return the pages that a page links to, except links to its `images`."""
    found: dict[str, PageRequest] = {}
    reader = TextReader(soup, request.url)
    is_followed = page_filter(config, config.start, notes)

    def add(tag: Tag, depth: int, context: dict[str, object]) -> None:
        url = _link_url(tag, base, notes)
        if url is None or url == request.url or url in found or url in images:
            return
        if (
            looks_like_image(url)
            and largest_candidate(candidates(tag, config.full_size), base, {}) in images
        ):
            return
        if is_followed(url):
            found[url] = PageRequest(url, depth, context)

    for rule in config.follow:
        rule = rule if isinstance(rule, Follow) else Follow(select=rule)
        for tag in soup.select(rule.select):
            add(tag, request.depth + 1, _inherited_context(rule, tag, reader, request))
    for tag in soup.select(config.next) if config.next else ():
        add(tag, request.depth, dict(request.context))
    return list(found.values())


def page_filter(
    config: HtmlSource, onsite: Iterable[str], notes: dict[str, int]
) -> Callable[[str], bool]:
    """Return a function that returns True if the page at a canonical URL is to be followed, by its
    host and the patterns. Hosts of the URLs `onsite` are not offsite, with or without `www.`.
    `notes` counts pages on other hosts."""
    hosts = {_site(url) for url in map(canonical_url, onsite) if url}

    def is_followed(url: str) -> bool:
        if not config.offsite and _site(url) not in hosts:
            notes["offsite"] = notes.get("offsite", 0) + 1
            return False
        return is_allowed(url, config.follow_include, config.follow_exclude)

    return is_followed


def _site(url: str) -> str:
    return urlsplit(url).netloc.removeprefix("www.")


def _link_url(tag: Tag, base: str, notes: dict[str, int]) -> str | None:
    """Return the URL of a link, or None; `notes` counts invalid URLs."""
    link = tag if tag.get("href") or tag.get("src") else tag.select_one("[href]")
    if link is None:
        return None
    text = (attribute(link, "href") or attribute(link, "src")).strip()
    reason = rejection_reason(text)
    if text.startswith("#") or reason in ("empty", "data_uri"):
        return None
    url = None if reason in ("template", "bad_url") else canonical_url(text, base)
    if url is None and not _OTHER_SCHEME.match(text):
        reason = reason or "bad_url"
        notes[reason] = notes.get(reason, 0) + 1
    return url


def _inherited_context(
    rule: Follow, tag: Tag, reader: TextReader, request: PageRequest
) -> dict[str, object]:
    """Return the context of the pages behind a link: the inherited labels and title, and those of
    the link."""
    item = (soupsieve.closest(rule.item, tag) if rule.item else None) or tag
    labels = list(request.context.get("labels", ()))
    for what in rule.labels:
        labels += reader.read(what, item) or [""]
    titles = reader.read(rule.title, item)
    title = titles[0] if titles else request.context.get("title", "")
    return {**({"labels": labels} if labels else {}), **({"title": title} if title else {})}


HTML = Adapter(HtmlSource, start, parse)

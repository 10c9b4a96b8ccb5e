"""Parses a page into a tree of limited size and depth, and reads its terms of use."""

from __future__ import annotations

import codecs
import re

from bs4 import BeautifulSoup, Tag

from pipeline.outside_text import decode_text, text_encoding
from pipeline.sources.interface import Page, PageTerms
from pipeline.sources.text_selectors import attribute
from pipeline.web.urls import canonical_url

MAX_TAGS = 200_000
"""Maximum number of tags, which limits time and memory per page."""
MAX_DEPTH = 200
"""Maximum depth; deeper elements become siblings."""
_MAX_ELEMENTS = 500
_MAX_TEXT = 2000
_MAX_LICENSES = 4

_PROLOG = re.compile(rb"^\s*(?:\xef\xbb\xbf)?<\?xml[^>]*\?>")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


class _Soup(BeautifulSoup):
    """A tree of at most `MAX_DEPTH`, because the time of selectors depends on the depth."""

    _too_deep = 0

    def reset(self) -> None:
        super().reset()
        self._too_deep = 0

    def pushTag(self, tag: Tag) -> None:
        if len(self.tagStack) <= MAX_DEPTH or self.currentTag is None:
            super().pushTag(tag)
        else:
            self._too_deep += 1
            self.currentTag.contents.append(tag)

    def handle_endtag(self, name: str, nsprefix: str | None = None) -> None:
        if self._too_deep:
            self._too_deep -= 1
            self.endData()
        else:
            super().handle_endtag(name, nsprefix)


def make_soup(
    page: Page, notes: dict[str, int] | None = None, max_tags: int = MAX_TAGS
) -> BeautifulSoup:
    """Parse a page, in UTF-16 or UTF-32 if its first bytes indicate it, else in the charset of its
    header. A page with more than `max_tags` tags is truncated, which `notes` counts."""
    body, charset = page.body, _charset(page)
    if not text_encoding(body).startswith("utf-8"):
        body, charset = decode_text(body).encode(errors="replace"), "utf-8"
    body = _PROLOG.sub(b"", body)
    if body.count(b"<") > max_tags:
        body = body[: _tag_offset(body, max_tags)]
        if notes is not None:
            notes["cut_after_too_many_tags"] = 1
    return _Soup(body, "lxml", from_encoding=charset)


def page_base(soup: BeautifulSoup, url: str) -> str:
    """Return the base of relative URLs in the page: the first `<base href>`, or its URL."""
    tag = soup.select_one("base[href]")
    return (canonical_url(attribute(tag, "href"), url) if tag else None) or url


def page_terms(soup: Tag) -> PageTerms:
    """Return the terms of use in a page: meta elements, links and embedded RSL licences."""
    metas = [
        (attribute(meta, "name").strip().lower(), attribute(meta, "content")[:_MAX_TEXT])
        for meta in soup.select("meta[name][content]", limit=_MAX_ELEMENTS)
    ]
    links = [
        (attribute(link, "rel"), attribute(link, "type"), attribute(link, "href")[:_MAX_TEXT])
        for link in soup.select("link[rel][href]", limit=_MAX_ELEMENTS)
    ]
    scripts = soup.select('script[type="application/rsl+xml"]', limit=_MAX_LICENSES)
    return PageTerms(tuple(metas), tuple(links), tuple(script.get_text() for script in scripts))


def _tag_offset(body: bytes, number: int) -> int:
    """Return the offset of the tag with this number."""
    found = -1
    for _ in range(number + 1):
        found = body.index(b"<", found + 1)
    return found


def _charset(page: Page) -> str | None:
    match = _CHARSET.search(page.headers.get("content-type", ""))
    try:
        return codecs.lookup(match[1]).name if match else None
    except (LookupError, ValueError):
        return None

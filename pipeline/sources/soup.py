"""A page as a tree of elements, of bounded size and depth."""

from __future__ import annotations

import codecs
import re

from bs4 import BeautifulSoup, Tag

from pipeline.sources.interface import Page
from pipeline.sources.text_selectors import attribute
from pipeline.web.urls import canonical_url

MAX_TAGS = 200_000
"""Tags of a page that are read: it bounds the time and memory of one page."""
MAX_DEPTH = 200
"""Elements nested deeper are read as if they were next to each other."""

_PROLOG = re.compile(rb"^\s*(?:\xef\xbb\xbf)?<\?xml[^>]*\?>")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


class _Soup(BeautifulSoup):
    """A tree that is not deeper than `MAX_DEPTH`: selectors look at all elements around one."""

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
    """The parsed page, in the charset of its header where it names one that exists. A page of more
    tags than `max_tags` is read up to there, and `notes` says so."""
    body = _PROLOG.sub(b"", page.body)
    if body.count(b"<") > max_tags:
        body = body[: _position(body, max_tags)]
        if notes is not None:
            notes["cut_after_too_many_tags"] = 1
    return _Soup(body, "lxml", from_encoding=_charset(page))


def page_base(soup: BeautifulSoup, url: str) -> str:
    """What relative URLs of the page are relative to: the first `<base href>`, or its URL."""
    tag = soup.select_one("base[href]")
    return (canonical_url(attribute(tag, "href"), url) if tag else None) or url


def _position(body: bytes, number: int) -> int:
    """Where the tag with this number begins."""
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

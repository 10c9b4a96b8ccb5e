"""Terms of use in a page: meta elements, licence links, RSL in the page."""

from __future__ import annotations

from dataclasses import dataclass

from bs4 import Tag

from pipeline.sources.text_selectors import attribute

_MOST = 500
_LONGEST = 2000
_MOST_LICENSES = 4


@dataclass(frozen=True)
class PageTerms:
    """Meta elements as (name in lower case, content); links as (rel, type, href); the text of RSL
    licences in the page."""

    metas: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str, str], ...] = ()
    licenses: tuple[str, ...] = ()


def page_terms(soup: Tag) -> PageTerms:
    """Return the terms of a parsed page."""
    metas = [
        (attribute(meta, "name").strip().lower(), attribute(meta, "content")[:_LONGEST])
        for meta in soup.select("meta[name][content]", limit=_MOST)
    ]
    links = [
        (attribute(link, "rel"), attribute(link, "type"), attribute(link, "href")[:_LONGEST])
        for link in soup.select("link[rel][href]", limit=_MOST)
    ]
    scripts = soup.select('script[type="application/rsl+xml"]', limit=_MOST_LICENSES)
    return PageTerms(tuple(metas), tuple(links), tuple(script.get_text() for script in scripts))

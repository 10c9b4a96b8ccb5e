"""Extracts terms of use from a page: meta elements, links and embedded RSL licences."""

from __future__ import annotations

from dataclasses import dataclass

from bs4 import Tag

from pipeline.sources.text_selectors import attribute

_MAX_ELEMENTS = 500
_MAX_TEXT = 2000
_MAX_LICENSES = 4


@dataclass(frozen=True)
class PageTerms:
    """Meta elements as (name in lower case, content), links as (rel, type, href), and the texts of
    embedded RSL licences."""

    metas: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str, str], ...] = ()
    licenses: tuple[str, ...] = ()


def page_terms(soup: Tag) -> PageTerms:
    """Return the terms of a parsed page."""
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

"""Recognises parts of a page that are not content: frame, ornaments, links to next pages."""

from __future__ import annotations

import re

from bs4 import Tag

from pipeline.sources.image_urls import url_path
from pipeline.sources.text_selectors import attribute

FRAME_TAGS = ("header", "footer", "nav", "aside")

_FRAME_NAME = re.compile(
    r"((site|page|main|global|top|primary|blog|entry|post)[-_]?)?"
    r"(header|footer|nav|navbar|navigation|menu|sidebar|masthead|topbar|colophon)"
    r"([-_]?(area|wrap|wrapper|container|inner|bar|left|right|primary|secondary|links|menu))?"
    r"|(site[-_]?|navbar[-_]?)?(logo|brand|branding)"
    r"|(.*[-_])?(related|relatedposts|recommended|comments?|share|sharing|social|sharedaddy|widget[-_]area"
    r"|breadcrumbs?|sponsors?|newsletter|cookies?|author[-_](box|bio)|post[-_]navigation"
    r"|prev(ious)?[-_]?next)([-_].*)?",
    re.IGNORECASE,
)

_FRAME_ROLES = frozenset(("navigation", "banner", "contentinfo", "complementary", "search"))

_ORNAMENT = re.compile(
    r"(?<![a-z])(logo|icons?|favicon|avatar|gravatar|badge|sprite|spinner|preloader|emoji"
    r"|header[-_]image)(?![a-z])"
    r"|^(play|close|prev|next|arrow|fullscreen|hero|flag|button|banner|btn|zoom|search|menu|back|up"
    r"|home|folder|loader|loading)[-_]?(left|right|button|btn|bg|image|\d*)\.\w+$",
    re.IGNORECASE,
)

_NEXT_TEXT = re.compile(
    r"\W*((next|older|more|weiter|nächste|suivante?s?|siguientes?|successiv[oa]|avanti|próxim[oa]|"
    r"volgende|nästa|neste|næste|dalej|następna|следующая|далее|下一页|次へ|次のページ)\b.{0,20}"
    r"|[›»→⟩❯]+|>{1,2})\W*",
    re.IGNORECASE,
)

_NUMBER_TEXT = re.compile(r"\W*(page |seite |p\.? ?)?\d{1,4}\W*", re.IGNORECASE)


def is_frame(tag: Tag, by_name: bool = True) -> bool:
    """Return True if an element is a header, footer, navigation or the like; with `by_name`, also
    judged by its class and id."""
    if tag.name in FRAME_TAGS or attribute(tag, "role") in _FRAME_ROLES:
        return True
    if not by_name:
        return False
    names = [*attribute(tag, "class").split(), attribute(tag, "id")]
    return any(_FRAME_NAME.fullmatch(name) for name in names if name)


def is_ornament(url: str, classes: str = "") -> bool:
    """Return True if the file name or `classes` of an image indicate a logo, icon or the like."""
    name = url_path(url).rpartition("/")[2]
    return bool(_ORNAMENT.search(name) or any(map(_ORNAMENT.search, classes.split())))


def is_next_link(link: Tag) -> bool:
    """Return True if a link is labelled as the next page or as a page number."""
    rel = attribute(link, "rel").lower().split()
    if "next" in rel:
        return True
    names = " ".join((attribute(link, "class"), attribute(link, "id"))).lower()
    if re.search(r"(^|[\s_-])next($|[\s_-])", names) and "prev" not in names:
        return True
    labels = [link.get_text()[:200], attribute(link, "aria-label"), attribute(link, "title")]
    return any(
        _NEXT_TEXT.fullmatch(one) or _NUMBER_TEXT.fullmatch(one)
        for one in (" ".join(label.split()) for label in labels)
        if one
    )

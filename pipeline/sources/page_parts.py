"""Recognises parts of a page that are not content (frame, ornaments, links to next pages), and
builds short CSS selectors for groups of elements.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bs4 import BeautifulSoup, Tag

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

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_-]*")
_LAYOUT = re.compile(
    r"(col|cols|columns?|row|container|clearfix|wrap|wrapper|inner|outer|content|one|two|three|four"
    r"|six|nine|twelve|left|right|center|float|d-flex|flex|lazy|lazyload|active|first|last|odd|even"
    r"|rounded|shadow|img-fluid|img-responsive|border|col-.*|[mp][trblxy]?-.*)"
)
"""Classes for layout, which make poor selectors."""

_TOP = ("html", "body", "[document]")


def is_frame(tag: Tag, by_name: bool = True) -> bool:
    """Return True if an element is a header, footer, navigation or the like; with `by_name`, also
    checked by its class and id."""
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


class Selectors:
    """Builds selectors for the tags of one page."""

    def __init__(self, soup: BeautifulSoup) -> None:
        self._counts = Counter(
            (tag.name, name) for tag in soup.find_all(True) for name in _classes(tag)
        )

    def for_tag(self, tag: Tag) -> str:
        """Return the selector of a tag, preceded by that of the closest element around it with a
        class or id."""
        own = self.own(tag)
        outer = next(self.around(tag), "")
        return f"{outer} {own}" if outer else own

    def own(self, tag: Tag) -> str:
        """Return the name of a tag with its most frequent class, if it has one."""
        classes = _classes(tag)
        if not classes:
            return tag.name
        best = max(
            classes, key=lambda name: (not _LAYOUT.fullmatch(name), self._counts[tag.name, name])
        )
        return f"{tag.name}.{best}"

    def around(self, tag: Tag) -> Iterator[str]:
        """Yield selectors of the elements around a tag that have a class or id, closest first."""
        for parent in tag.parents:
            if parent.name in _TOP:
                return
            identity = attribute(parent, "id")
            if _classes(parent):
                yield self.own(parent)
            elif _PLAIN_NAME.fullmatch(identity) and not _has_sibling_with_id(parent):
                yield f"#{identity}"
            elif parent.name == "main":
                yield "main"


def _has_sibling_with_id(tag: Tag) -> bool:
    """Return True if a similar sibling has an id, because ids then identify items, not places."""
    return any(
        one.get("id")
        for beside in (tag.find_next_sibling(tag.name), tag.find_previous_sibling(tag.name))
        if isinstance(one := beside, Tag)
    )


def _classes(tag: Tag) -> list[str]:
    return [name for name in attribute(tag, "class").split() if _PLAIN_NAME.fullmatch(name)]

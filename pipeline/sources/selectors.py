"""Builds short CSS selectors for groups of elements."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bs4 import BeautifulSoup, Tag

from pipeline.sources.text_selectors import attribute

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_-]*")
_LAYOUT = re.compile(
    r"(col|cols|columns?|row|container|clearfix|wrap|wrapper|inner|outer|content|one|two|three|four"
    r"|six|nine|twelve|left|right|center|float|d-flex|flex|lazy|lazyload|active|first|last|odd|even"
    r"|rounded|shadow|img-fluid|img-responsive|border|col-.*|[mp][trblxy]?-.*)"
)
"""Classes for layout, which make poor selectors."""

_TOP = ("html", "body", "[document]")


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

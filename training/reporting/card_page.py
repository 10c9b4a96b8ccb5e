"""The data set's card, for the report of a run trained on it."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from pipeline.contract import UserError, is_url, locate_index, read_bytes, safe_text

_PLAIN = frozenset((
    "h1", "h2", "h3", "h4", "p", "em", "strong", "code", "pre", "ul", "ol", "li", "blockquote",
    "table", "thead", "tbody", "tr", "th", "td",
))  # fmt: skip
"""Elements that a card can have; they are taken without their attributes."""
_SILENT = frozenset(("script", "style", "template", "noscript", "title", "iframe", "svg", "math"))
"""Elements whose content is no text of the card."""
_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/=]+")
_MOST = 64 << 20


def card_html(location: str) -> str:
    """The body of `card.html` beside the index that `location` means, its pictures in it. Empty
    if there is no card on this machine."""
    try:
        index = locate_index(location)
        if is_url(index):
            return ""
        page = read_bytes(Path(index).with_name("card.html"), _MOST).decode("utf-8", "replace")
    except (UserError, OSError, ValueError):
        return ""
    return harmless(page.partition("<main>")[2].rpartition("</main>")[0])


def harmless(markup: str) -> str:
    """HTML from outside as HTML that is written anew: plain elements without attributes, pictures
    that are in it, and text. Nothing of it is run or fetched, and every element is closed."""
    writer = _Writer()
    writer.feed(safe_text(markup))
    writer.close()
    return writer.text()


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if self._silent:
            return
        if tag in _PLAIN:
            self._parts.append(f"<{tag}>")
            self._open.append(tag)
        elif tag in ("br", "hr"):
            self._parts.append(f"<{tag}>")
        elif tag == "img":
            self._add_picture({name: value or "" for name, value in attrs})

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("br", "hr", "img"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag == self._silent[-1]:
                self._silent.pop()
        elif tag in self._open:
            while (closed := self._open.pop()) != tag:
                self._parts.append(f"</{closed}>")
            self._parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(escape(data))

    def _add_picture(self, attributes: dict[str, str]) -> None:
        words, source = escape(attributes.get("alt", "")), attributes.get("src", "")
        if _PICTURE.fullmatch(source):
            self._parts.append(f'<img src="{source}" alt="{words}">')
        else:
            self._parts.append(words)

    def text(self) -> str:
        return "".join((*self._parts, *(f"</{tag}>" for tag in reversed(self._open))))

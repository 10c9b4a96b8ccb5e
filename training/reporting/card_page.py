"""The dataset card for the report of a run."""

from __future__ import annotations

import re
from pathlib import Path

import nh3

from pipeline.contract import UserError, is_url, locate_index, read_bytes, safe_text

_TAGS = {
    "h1", "h2", "h3", "h4", "p", "em", "strong", "code", "pre", "ul", "ol", "li", "blockquote",
    "table", "thead", "tbody", "tr", "th", "td", "br", "hr", "img",
}  # fmt: skip
"""Elements that a card may contain. Only images keep attributes."""
_WITHOUT_CONTENT = {"script", "style", "template", "noscript", "title", "iframe", "svg", "math"}
"""Elements that are dropped together with their content."""
_IMAGE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/=]+")
_WITHOUT_SOURCE = re.compile(r'<img(?: alt="[^"]*")?>')
_MOST = 64 << 20


def card_html(location: str) -> str:
    """Return the body of `card.html` beside the index at `location`, with its images embedded.
    Empty if there is no local card."""
    try:
        index = locate_index(location)
        if is_url(index):
            return ""
        page = read_bytes(Path(index).with_name("card.html"), _MOST).decode("utf-8", "replace")
    except (UserError, OSError, ValueError):
        return ""
    return harmless(page.partition("<main>")[2].rpartition("</main>")[0])


def harmless(markup: str) -> str:
    """Sanitize HTML from outside: plain elements without attributes, embedded images, and text.
    Nothing in the result is executed or fetched, and every element is closed."""
    clean = nh3.clean(
        safe_text(markup),
        tags=_TAGS,
        clean_content_tags=_WITHOUT_CONTENT,
        attributes={"img": {"src", "alt"}},
        attribute_filter=_keep_attribute,
        url_schemes={"data"},
        url_relative="deny",
    )
    return _WITHOUT_SOURCE.sub("", clean)


def _keep_attribute(_tag: str, name: str, value: str) -> str | None:
    return value if name == "alt" or _IMAGE.fullmatch(value) else None

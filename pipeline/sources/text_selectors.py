"""Text selectors: how a recipe reads a title, label or licence from an HTML page."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import soupsieve
from bs4 import Tag
from pydantic import AfterValidator, BeforeValidator
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.outside_text import safe_text

MAX_TEXT = 1000
MAX_LABELS = 1000
"""Maximum number of labels per image."""

_MAX_READ = 100_000
_SPACES = re.compile(r"\s+")
_TAG = re.compile(r"<[^<>]+>")


def _check_css(selector: str) -> str:
    try:
        soupsieve.compile(selector)
    except (soupsieve.SelectorSyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"not a CSS selector: {str(error).partition(chr(10))[0]}") from None
    return selector


def _check_pattern(pattern: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            re.compile(pattern)  # such as "[[", whose meaning may change in a later Python
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Css = Annotated[str, AfterValidator(_check_css)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]


@dataclass(frozen=True, config=STRICT)
class TextSelectorOptions:
    """Where to read one text: exactly one of `item`, `page`, `of` and `value`.

    `item` and `page` are CSS selectors: within the item of an image (or the item itself), or within
    the whole page. `of` uses the URL of the page or the image. `value` is the text itself.
    `attribute` reads an attribute instead of the text, `match` takes the first group (or the whole
    match) of a regular expression, and `all` takes every match instead of the first.
    """

    item: Css | None = None
    page: Css | None = None
    of: Literal["page_url", "image_url"] | None = None
    value: str | None = None
    attribute: str = ""
    match: Pattern | None = None
    all: bool = False

    def __post_init__(self) -> None:
        given = [self.item, self.page, self.of, self.value]
        if sum(one is not None for one in given) != 1:
            raise ValueError("set exactly one of item, page, of, value")


def _from_text(value: Any) -> Any:
    return {"item": value} if isinstance(value, str) else value


TextSelector = Annotated[TextSelectorOptions, BeforeValidator(_from_text)]
"""Options of a text selector; a plain string is a CSS selector in the item."""


@dataclass(frozen=True, config=STRICT)
class ImageSelectorOptions:
    """Selects the elements with the images of a page, by CSS selector.

    `select` is the CSS selector. With `attribute`, the URL is read only from that attribute,
    otherwise from all candidates of the element. `match` takes the first group (or the whole match)
    of a regular expression in the attribute's value.
    """

    select: Css = "img"
    attribute: str = ""
    match: Pattern | None = None

    def __post_init__(self) -> None:
        if self.match is not None and not self.attribute:
            raise ValueError("match: needs an attribute")


def _select_from_text(value: Any) -> Any:
    return {"select": value} if isinstance(value, str) else value


ImageSelector = Annotated[ImageSelectorOptions, BeforeValidator(_select_from_text)]
"""Options of an image selector; a plain string is a CSS selector."""


class TextReader:
    """Evaluates text selectors on one page; those on the whole page are evaluated once."""

    def __init__(self, page: Tag, url: str) -> None:
        self.page = page
        self.url = url
        self._page_texts: dict[TextSelectorOptions, list[str]] = {}

    def read(self, what: TextSelectorOptions | None, item: Tag, image_url: str = "") -> list[str]:
        """Return the texts that `what` selects for `item`; at most one unless `what.all`."""
        if what is None:
            return []
        texts = [clean(text) for text in self._texts(what, item, image_url)]
        if what.match is not None:
            matches = [re.search(what.match, text) for text in texts]
            texts = [clean((m[1] if m.re.groups else m[0]) or "") for m in matches if m]
        texts = [text for text in texts if text]
        return texts if what.all else texts[:1]

    def _texts(self, what: TextSelectorOptions, item: Tag, image_url: str) -> list[str]:
        if what.value is not None:
            return [what.value]
        if what.of is not None:
            return [self.url if what.of == "page_url" else image_url]
        if what.item is not None:
            own = [item] if soupsieve.match(what.item, item) else []
            return _texts_of([*own, *item.select(what.item)], what.attribute)
        if what not in self._page_texts:
            found = _texts_of(self.page.select(what.page or ""), what.attribute)
            self._page_texts[what] = found
        return self._page_texts[what]


def _texts_of(tags: Iterable[Tag], name: str) -> list[str]:
    return [attribute(tag, name) if name else tag.get_text(" ") for tag in tags]


def attribute(tag: Tag, name: str) -> str:
    """Return the value of an attribute as text; empty if it does not exist."""
    value = tag.get(name)
    if value is None:
        return ""
    return value if isinstance(value, str) else " ".join(value)


def clean(text: str) -> str:
    """Return `text` with single spaces, without control characters, truncated to 1000
    characters."""
    return safe_text(_SPACES.sub(" ", text[:_MAX_READ]).strip()[:MAX_TEXT])


def clean_html(text: str) -> str:
    """Return `text` without its HTML tags and with its entities decoded, cleaned."""
    return clean(html.unescape(_TAG.sub(" ", text[:_MAX_READ])))

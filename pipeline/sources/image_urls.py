"""URLs of images as written: the candidates of `srcset`, and whether a URL can be used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_IMAGE_PATH = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|tiff?|bmp|avif|jp2|heic|heif)$", re.IGNORECASE
)
_WIKI_PAGE = re.compile(r"/wiki/[^/]*:", re.IGNORECASE)
_TEMPLATE = re.compile(r"[{}]|<%|%>|%7B%7B|\[\[", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"(^|/)(blank|spacer|transparent|1x1|pixel|loading|gr[ea]y)\.(gif|png|jpe?g|webp|svg)$|"
    r"[/_.-](placeholder|lqip)([_.-][^/]*)?\.\w+$|[/,](e_)?blur[_:]\d+(?=[,/])|"
    r"[/,]e_blur(?=[,/])|[?&;,](blur|lqip)=",
    re.IGNORECASE,
)

_SPACE = " \t\n\f\r"
_DESCRIPTOR = re.compile(r"([0-9]+)([wh])|([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)x")


def url_path(url: str) -> str:
    """Return the unescaped path of a URL as written; everything before the query if it is
    invalid."""
    try:
        return unquote(urlsplit(url.strip()).path)
    except ValueError:
        return re.split(r"[?#]", url, maxsplit=1)[0]


def looks_like_image(url: str) -> bool:
    """Return True if the path of `url` has an image extension and is not a wiki page."""
    path = url_path(url)
    return bool(_IMAGE_PATH.search(path)) and not _WIKI_PAGE.search(path)


def rejection_reason(url: str) -> str:
    """Return why a URL as written cannot be used as an image; empty if it can."""
    if not url:
        return "empty"
    if url[:5].lower() == "data:":
        return "data_uri"
    if _TEMPLATE.search(url):
        return "template"
    if _PLACEHOLDER.search(unquote(url)):
        return "placeholder"
    try:
        urlsplit(url)
    except ValueError:
        return "bad_url"
    return ""


@dataclass(frozen=True)
class SrcsetCandidate:
    """One candidate: its URL as written, and its `width` in pixels or its `density`."""

    url: str
    width: int | None = None
    density: float = 1.0


def parse_srcset(text: str) -> list[SrcsetCandidate]:
    """Return the valid candidates of a `srcset`, in order (HTML, section 4.8.4.3.10).

    Splitting at commas would be wrong: URLs may contain commas, and a candidate may lack a
    descriptor.
    """
    found: list[SrcsetCandidate] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in _SPACE + ",":
            position += 1
        if position >= end:
            return found
        start = position
        while position < end and text[position] not in _SPACE:
            position += 1
        url = text[start:position]
        descriptors: list[str] = []
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            descriptors, position = _descriptors(text, position)
        candidate = _candidate(url, descriptors)
        if candidate:
            found.append(candidate)


def _descriptors(text: str, position: int) -> tuple[list[str], int]:
    """Return the descriptors from `position` to the next comma outside parentheses, and the
    position after it."""
    inside, start = False, position
    while position < len(text) and not (text[position] == "," and not inside):
        if text[position] in "()":
            inside = text[position] == "("
        position += 1
    return text[start:position].split(), position + 1


def _candidate(url: str, descriptors: list[str]) -> SrcsetCandidate | None:
    values: dict[str, str] = {}
    for word in descriptors:
        match = _DESCRIPTOR.fullmatch(word)
        if not match:
            return None
        unit, value = match[2] or "x", match[1] or match[3]
        if unit in values or (unit in "wh" and int(value) == 0):
            return None
        values[unit] = value
    if ("x" in values and len(values) > 1) or ("h" in values and "w" not in values) or not url:
        return None
    width = int(values["w"]) if "w" in values else None
    return SrcsetCandidate(url, width, float(values.get("x", 1)))

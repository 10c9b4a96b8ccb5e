"""Checks whether a URL as written looks like an image, and whether it can be used."""

from __future__ import annotations

import re
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

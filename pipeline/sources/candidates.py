"""Image candidates: the URLs an element of a page offers for one image, and the largest of them.

Order of trust: an attribute that names the full size (`data-big` and its like), then a link to an
image file or a JSON-LD `contentUrl`, then what the page shows (`srcset`, `picture`, lazy
attributes, `src`, `og:image`), there by width in pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from bs4 import Tag

from pipeline.sources.picks import attribute
from pipeline.sources.srcset import parse_srcset
from pipeline.web.urls import canonical_url

FULL_SIZE_ATTRIBUTES = (
    "data-big", "data-full", "data-full-src", "data-fullsize", "data-original-file",
    "data-orig-file", "data-large", "data-large-file", "data-large_image", "data-hires",
    "data-highres", "data-high-res-src", "data-zoom", "data-zoom-image", "data-download-url",
)  # fmt: skip
LAZY_ATTRIBUTES = (
    "data-src", "data-lazy-src", "data-lazy", "data-original", "data-echo",
)  # fmt: skip
LAZY_SETS = ("data-srcset", "data-lazy-srcset")

FULL, LINKED, SHOWN = 3, 2, 1

_IMAGE_PATH = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|tiff?|bmp|avif|jp2|heic|heif)$", re.IGNORECASE
)
_PAGE_PATH = re.compile(r"(\.(x?html?|shtml|php\d?|aspx?|jsp|cgi)|/)$", re.IGNORECASE)
_WIKI_PAGE = re.compile(r"/wiki/[^/]*:", re.IGNORECASE)
_TEMPLATE = re.compile(r"[{}]|<%|%>|%7B%7B|\[\[", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"(^|/)(blank|spacer|transparent|1x1|pixel|loading|gr[ea]y)\.(gif|png|jpe?g|webp|svg)$|"
    r"[/_.-](placeholder|lqip)([_.-][^/]*)?\.\w+$|[/,]blur_\d|[?&](blur|lqip)=",
    re.IGNORECASE,
)
_FORMATS = {"image/jpeg": 3, "image/png": 3, "": 2, "image/webp": 1}
"""Between files of one width: what every decoder reads before what newer ones read."""


@dataclass(frozen=True)
class Candidate:
    """A URL as written, how far it is trusted to be the full size, and its width where known."""

    url: str
    trust: int
    width: float = 0.0
    format: int = 2


def looks_like_image(url: str) -> bool:
    """Whether the path of `url` ends like an image file (and is not a wiki's page about one)."""
    path = unquote(urlsplit(url).path)
    return bool(_IMAGE_PATH.search(path)) and not _WIKI_PAGE.search(path)


def why_not(url: str) -> str:
    """Why a URL as written cannot be an image to take; empty when it can."""
    if not url:
        return "empty"
    if url.lower().startswith("data:"):
        return "data_uri"
    if _TEMPLATE.search(url):
        return "template"
    if _PLACEHOLDER.search(url):
        return "placeholder"
    return ""


def largest(candidates: Sequence[Candidate], base: str, notes: dict[str, int]) -> str | None:
    """The canonical URL of the largest usable candidate; the reasons against others go to `notes`
    when none is usable."""
    usable, reasons = [], []
    for order, candidate in enumerate(candidates):
        text = candidate.url.strip()
        reason = why_not(text)
        url = None if reason else canonical_url(text, base)
        if url and url != base:
            usable.append((candidate.trust, candidate.width, candidate.format, -order, url))
        else:
            reasons.append(reason or "not_http")
    if usable:
        return max(usable)[-1]
    for reason in set(reasons or ["no_candidate"]):
        notes[reason] = notes.get(reason, 0) + 1
    return None


def candidates(tag: Tag, full_size: Sequence[str]) -> list[Candidate]:
    """Everything that the element `tag`, what is inside it and a link around it offer.

    Args:
        tag: the element a recipe chose: img, picture, a, meta, or anything that holds them.
        full_size: names of attributes that hold the URL of the full size.
    """
    found: list[Candidate] = []
    around = tag.find_parent(["a", "picture"])
    scope = [tag, *tag.find_all(True)]
    if around is not None and tag.name in ("img", "picture", "source"):
        link = around if around.name == "a" else around.find_parent("a")
        if around.name == "picture":
            scope = [around, *around.find_all(True)]
        if link is not None:
            scope.append(link)
    for element in scope:
        found += [
            Candidate(attribute(element, name), FULL) for name in full_size if element.get(name)
        ]
        found += _of_element(element, chosen=element is tag)
    return found


def _of_element(element: Tag, chosen: bool) -> Iterator[Candidate]:
    name = element.name
    if name in ("a", "area"):
        href = attribute(element, "href")
        if looks_like_image(href) or (
            chosen and href and not _PAGE_PATH.search(urlsplit(href).path or "/")
        ):
            yield Candidate(href, LINKED, _pixels(element, "data-pswp-width", "data-width"))
    elif name == "img":
        yield from _of_img(element)
    elif name == "source" and element.find_parent("picture") is not None:
        kind = _FORMATS.get(attribute(element, "type").lower(), 0)
        for attr in ("srcset", *LAZY_SETS):
            yield from _of_srcset(attribute(element, attr), 0.0, kind)
    elif name == "meta" and chosen:
        yield Candidate(attribute(element, "content"), SHOWN, _og_width(element))
    elif name == "link" and chosen:
        yield Candidate(attribute(element, "href"), SHOWN)


def _of_img(img: Tag) -> Iterator[Candidate]:
    width = _pixels(img, "width")
    if 0 < width <= 2:
        return
    lazy = [attribute(img, name) for name in LAZY_ATTRIBUTES if img.get(name)]
    sets = [attribute(img, name) for name in LAZY_SETS if img.get(name)]
    for text in [*sets, attribute(img, "srcset")]:
        yield from _of_srcset(text, width, 2)
    for url in lazy:
        yield Candidate(url, SHOWN, width)
    # With a lazy attribute beside it, src is the placeholder shown until then.
    if img.get("src") and not lazy and not sets:
        yield Candidate(attribute(img, "src"), SHOWN, width)


def _of_srcset(text: str, shown: float, kind: int) -> Iterator[Candidate]:
    for one in parse_srcset(text):
        yield Candidate(
            one.url, SHOWN, one.width if one.width is not None else (shown or 1) * one.density, kind
        )


def _pixels(tag: Tag, *names: str) -> float:
    for name in names:
        match = re.match(r"\s*(\d{1,6})(px)?\s*$", attribute(tag, name))
        if match:
            return float(match[1])
    return 0.0


def _og_width(meta: Tag) -> float:
    """The `og:image:width` that belongs to an `og:image`: the next one in the document."""
    follower = meta.find_next("meta", property=re.compile(r"^og:image(:width)?$"))
    if not isinstance(follower, Tag) or attribute(follower, "property") != "og:image:width":
        return 0.0
    return _pixels(follower, "content")


def json_ld_images(script: Tag, notes: dict[str, int]) -> list[list[Candidate]]:
    """The images of a JSON-LD script, each as its candidates.

    An ImageObject is one image; several plain URLs under one `image` are taken as renditions of
    one image, as search engines ask for them.
    """
    try:
        data = json.loads(script.get_text())
    except ValueError:
        notes["bad_json_ld"] = notes.get("bad_json_ld", 0) + 1
        return []
    found: list[list[Candidate]] = []
    _walk_json_ld(data, found)
    return found


def _walk_json_ld(node: Any, found: list[list[Candidate]]) -> None:
    if isinstance(node, list):
        for one in node:
            _walk_json_ld(one, found)
    if not isinstance(node, dict):
        return
    if "ImageObject" in _as_list(node.get("@type")):
        url = node.get("contentUrl") or node.get("url")
        if isinstance(url, str):
            found.append([Candidate(url, LINKED, _number(node.get("width")))])
        return
    plain = [one for one in _as_list(node.get("image")) if isinstance(one, str)]
    if plain:
        found.append([Candidate(url, LINKED) for url in plain])
    for value in node.values():
        _walk_json_ld(value, found)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> float:
    if isinstance(value, dict):
        value = value.get("value")
    try:
        return max(0.0, float(str(value).removesuffix("px")))
    except ValueError:
        return 0.0

"""Finds the candidate URLs of an image in an element, and chooses the largest.

Order of precedence: an attribute for the full size (`data-big` and others); one that a lightbox
reads (`data-src` of a link or of an element around a thumbnail); a link to an image file
or a JSON-LD `contentUrl`; what the page displays (`srcset`, `picture`, lazy attributes, `src`,
backgrounds, `og:image`), by width in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bs4 import Tag

from pipeline.sources.image_urls import looks_like_image, parse_srcset, rejection_reason, url_path
from pipeline.sources.text_selectors import attribute
from pipeline.web.urls import canonical_url

FULL_SIZE_ATTRIBUTES = (
    "data-big", "data-full", "data-full-src", "data-full-url", "data-full-image", "data-fullsize",
    "data-full-size", "data-fullsrc", "data-original-file", "data-original-src", "data-orig-file",
    "data-orig-src", "data-orig", "data-large", "data-large-src", "data-large-file",
    "data-large_image", "data-large-image", "data-hires", "data-hi-res", "data-hi-res-src",
    "data-highres", "data-high-res", "data-high-res-src", "data-highres-src", "data-zoom",
    "data-zoom-src", "data-zoom-image", "data-download-url", "data-pswp-src", "data-mfp-src",
    "data-ngsrc", "data-magnify-src", "data-super",
)  # fmt: skip
"""Attributes that contain the URL of the full-size image."""

_POINTING_ATTRIBUTES = ("data-src", "data-image", "data-href", "data-featherlight")
"""The same for a link or an element around a thumbnail. On an img, `data-src` is lazy loading."""

LAZY_ATTRIBUTES = (
    "data-src", "data-lazy-src", "data-lazy", "data-original", "data-echo", "data-lazyload",
    "data-flickity-lazyload", "data-flickity-lazyload-src", "data-splide-lazy", "data-ll-src",
    "data-lazysrc", "data-img-src", "data-image-src",
)  # fmt: skip
LAZY_SETS = (
    "data-srcset", "data-lazy-srcset", "data-flickity-lazyload-srcset", "data-splide-lazy-srcset",
    "data-original-set", "data-lazyload-srcset",
)  # fmt: skip
BACKGROUND_ATTRIBUTES = (
    "data-bg", "data-bg-src", "data-bg-hidpi", "data-background", "data-background-image",
    "data-flickity-bg-lazyload", "data-lazy-background", "data-bg-image", "data-image-bg",
)  # fmt: skip

MAX_SRCSET = 100_000
"""Maximum length of a `srcset` in characters; the rest is ignored."""

FULL, POINTED, LINKED, SHOWN, PREVIEW = 4, 3, 2, 1, 0
"""Values of `Candidate.trust`."""

_PAGE_PATH = re.compile(r"(\.(x?html?|shtml|php\d?|aspx?|jsp|cgi)|/)$", re.IGNORECASE)
_DECLARATION = re.compile(
    r"([\w-]+)\s*:\s*((?:url\((?:\"[^\"]*\"|'[^']*'|[^)\"'])*\)?|[^;])*)", re.IGNORECASE
)
_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^)\"']*))", re.IGNORECASE)
_FORMATS = {"image/jpeg": 3, "image/png": 3, "": 2, "image/webp": 1}
"""Preference among files of equal width: widely supported formats first."""


@dataclass(frozen=True)
class Candidate:
    """A URL as written, its rank as a full-size image (`trust`), its width in pixels or 0, and the
    preference of its `format`."""

    url: str
    trust: int
    width: float = 0.0
    format: int = 2


def largest_candidate(
    candidates: Sequence[Candidate], base: str, notes: dict[str, int]
) -> str | None:
    """Return the canonical URL of the largest usable candidate, or None. `notes` counts the reasons
    if none is usable, and all invalid URLs."""
    usable, reasons = [], []
    for order, candidate in enumerate(candidates):
        text = candidate.url.strip()
        reason = rejection_reason(text)
        url = None if reason else canonical_url(text, base)
        if url and url != base:
            usable.append((candidate.trust, candidate.width, candidate.format, -order, url))
        else:
            reasons.append(reason or "not_http")
    if usable:
        reasons = [reason for reason in reasons if reason == "bad_url"]
    for reason in set(reasons) if usable or reasons else {"no_candidate"}:
        notes[reason] = notes.get(reason, 0) + 1
    return max(usable)[-1] if usable else None


def candidates(tag: Tag, full_size: Sequence[str]) -> list[Candidate]:
    """Return all candidates of the element `tag`, of the elements in it, and of a link around it.

    Args:
        tag: the element that a recipe selects: img, picture, a, meta, or an element around them.
        full_size: names of attributes that contain the URL of the full-size image.
    """
    scope = [tag, *tag.find_all(True)]
    if tag.name in ("img", "picture", "source"):
        picture = closest(tag, ("picture",))
        if picture is not None:
            scope = [picture, *picture.find_all(True)]
        link = closest(tag, ("a",))
        if link is not None:
            scope.append(link)
    found: list[Candidate] = []
    for element in scope:
        attrs = element.attrs
        found += [
            Candidate(attribute(element, name), FULL) for name in full_size if attrs.get(name)
        ]
        found += _element_candidates(element, chosen=element is tag)
    base = _items_base(tag)
    return [replace(one, url=_join_base(base, one.url)) for one in found] if base else found


def attribute_candidates(tag: Tag, name: str, match: str | None = None) -> list[Candidate]:
    """Return the candidates of the attribute `name` of `tag`: the URLs of a `srcset` or style, or
    its value; with `match`, the part that the regular expression finds."""
    text = attribute(tag, name).strip()
    if match is not None:
        found = re.search(match, text)
        text = (found[1] if found.re.groups else found[0]) or "" if found else ""
    elif name.endswith("srcset"):
        return list(_srcset_candidates(text, 0.0, 2))
    elif name == "style" or text[:4].lower() == "url(":
        return [Candidate(url, SHOWN) for url in _css_urls(text)]
    return [Candidate(text, FULL)] if text else []


def closest(tag: Tag, names: tuple[str, ...]) -> Tag | None:
    """Return `tag` or the closest element around it with one of the `names`."""
    around: Tag | None = tag
    while around is not None and around.name not in names:
        around = around.parent
    return around


def _items_base(tag: Tag) -> str:
    """Return the URL prefix that nanogallery2 sets for the items in its element, or empty."""
    around: Tag | None = tag
    while around is not None:
        settings = around.attrs.get("data-nanogallery2")
        if isinstance(settings, str):
            match = re.search(r'"itemsBaseURL"\s*:\s*"([^"]*)"', settings)
            return match[1] if match else ""
        around = around.parent
    return ""


def _join_base(base: str, url: str) -> str:
    return url if "//" in url[:8] or url[:1] == "/" else f"{base.rstrip('/')}/{url}"


def _element_candidates(element: Tag, chosen: bool) -> Iterator[Candidate]:
    name, attrs = element.name, element.attrs
    if name in ("a", "area"):
        href = attribute(element, "href").strip()
        if _may_be_image(href, chosen):
            yield Candidate(href, LINKED, _pixels(element, "data-pswp-width", "data-width"))
    if name == "img":
        yield from _img_candidates(element)
        if looks_like_image(attribute(element, "data-image")):
            yield Candidate(attribute(element, "data-image"), POINTED)
    elif name == "source" and closest(element, ("picture",)) is not None:
        kind = _FORMATS.get(attribute(element, "type").lower(), 0)
        for attr in ("srcset", *LAZY_SETS):
            yield from _srcset_candidates(attribute(element, attr), 0.0, kind)
    elif name == "meta" and chosen:
        yield Candidate(attribute(element, "content"), SHOWN, _og_width(element))
    elif name == "link" and chosen:
        yield Candidate(attribute(element, "href"), SHOWN)
    elif name not in ("script", "iframe", "video", "audio", "source", "embed"):
        pointing = [one for one in _POINTING_ATTRIBUTES if attrs.get(one)]
        trust = POINTED if pointing and (name == "a" or _holds_thumbnail(element)) else SHOWN
        for attr in pointing:
            value = attribute(element, attr).strip()
            if _may_be_image(value, chosen and name == "a" and attr == "data-src"):
                yield Candidate(value, trust)
    if "style" in attrs or any(one in attrs for one in BACKGROUND_ATTRIBUTES):
        yield from _background_candidates(element)


def _may_be_image(url: str, chosen: bool) -> bool:
    """Return True if a URL has an image extension, or, if a recipe selected the link, if it is not
    clearly a page."""
    if looks_like_image(url):
        return True
    path = url_path(url)
    return chosen and bool(path) and url[:1] != "#" and not _PAGE_PATH.search(path)


def _holds_thumbnail(element: Tag) -> bool:
    """Return True if `element` contains an img and is not inside a link to an image."""
    link = closest(element, ("a",))
    linked = link is not None and looks_like_image(attribute(link, "href"))
    return not linked and element.find("img") is not None


def _background_candidates(element: Tag) -> Iterator[Candidate]:
    for name in BACKGROUND_ATTRIBUTES:
        text = attribute(element, name).strip()
        urls = _css_urls(text) if "url(" in text.lower() else [text] if text else []
        for url in urls:
            yield Candidate(url, SHOWN)
    for declaration in _DECLARATION.finditer(attribute(element, "style")):
        if re.fullmatch(r"background(-image)?|--.*", declaration[1], re.IGNORECASE):
            for url in _css_urls(declaration[0]):
                yield Candidate(url, SHOWN)


def _css_urls(text: str) -> list[str]:
    return [(m[1] or m[2] or m[3] or "").strip() for m in _CSS_URL.finditer(text)]


def _img_candidates(img: Tag) -> Iterator[Candidate]:
    width = _pixels(img, "width")
    if 0 < width <= 2:
        return
    attrs = img.attrs
    lazy = [attribute(img, name) for name in LAZY_ATTRIBUTES if attrs.get(name)]
    sets = [attribute(img, name) for name in LAZY_SETS if attrs.get(name)]
    # If there is a lazy attribute or a noscript fallback, src is a placeholder.
    fallback = None if lazy or sets else _fallback(img)
    if fallback is not None:
        yield from _img_candidates(fallback)
        return
    for text in [*sets, attribute(img, "srcset")]:
        yield from _srcset_candidates(text, width, 2)
    for url in lazy:
        yield Candidate(url, SHOWN, width)
    if attrs.get("src") and not lazy and not sets:
        yield Candidate(attribute(img, "src"), SHOWN, width)


def _fallback(img: Tag) -> Tag | None:
    """Return the only img in a noscript element directly after or before `img`."""
    if closest(img, ("noscript",)) is not None:
        return None
    for beside in (img.next_sibling, img.previous_sibling):
        if isinstance(beside, str) and not beside.strip():
            beside = beside.next_sibling if beside is img.next_sibling else beside.previous_sibling
        if isinstance(beside, Tag) and beside.name == "noscript":
            images = beside.find_all("img", limit=2)
            if len(images) == 1 and not 0 < _pixels(images[0], "width") <= 2:
                return images[0]
    return None


def _srcset_candidates(text: str, shown: float, kind: int) -> Iterator[Candidate]:
    for one in parse_srcset(text[:MAX_SRCSET]):
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
    """Return the `og:image:width` of an `og:image`: the next one in the document."""
    follower = meta.find_next("meta", property=re.compile(r"^og:image(:width)?$"))
    if not isinstance(follower, Tag) or attribute(follower, "property") != "og:image:width":
        return 0.0
    return _pixels(follower, "content")

"""Finds the images and links of a page by kind, to propose a recipe.

The frame of a page (header, footer, navigation, lists of related pages) is recognised by its
elements and by common class names. Elements with the same selector form a group.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bs4 import Tag

from pipeline.sources.candidates import (
    BACKGROUND_ATTRIBUTES,
    FULL_SIZE_ATTRIBUTES,
    LINKED,
    POINTED,
    Candidate,
    candidates,
    closest,
    largest_candidate,
)
from pipeline.sources.image_urls import looks_like_image, url_path
from pipeline.sources.interface import Page
from pipeline.sources.page_parts import Selectors, is_frame, is_next_link, is_ornament
from pipeline.sources.script_images import attribute_images, script_images
from pipeline.sources.soup import make_soup, page_base
from pipeline.sources.text_selectors import attribute
from pipeline.web.urls import canonical_url

MAX_TAGS = 20_000
"""Maximum number of tags to examine per page."""

_MIN_SIDE = 64
_NOT_A_PAGE = re.compile(
    r"\.(xml|rss|atom|zip|tar|gz|7z|rar|pdf|mp[34]|m4[av]|mov|avi|webm|ogg|js|css|json|txt|svg|ics)$",
    re.IGNORECASE,
)
_NOT_GALLERY = re.compile(
    r"(^|[/?&=._-])(log-?(in|out)|sign-?(in|up|out)|register|wp-login|wp-admin|feeds?|rss|atom|cart|"
    r"checkout|account|replytocom|share|print|identification|password)(\.\w+)?([/?&=._-]|$)",
    re.IGNORECASE,
)
_OTHER_LISTS = re.compile(
    r"(^|[/?&=._-])(tags?|categor(y|ies)|archives?|authors?|users?|search|about|contact|imprint|"
    r"impressum|privacy|terms|sitemap|help|faq|recent|popular|calendar|stats?|slideshow)"
    r"(\.\w+)?([/?&=._-]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ImageUnit:
    """An element of the content with one image: its URL, the selector of its group (`key`), and its
    width in pixels or 0."""

    element: Tag
    url: str
    key: str
    width: float = 0.0


@dataclass(frozen=True)
class LinkUnit:
    """A link of the content to a page of the site; `key` is the selector of its group, and
    `thumbnail` the URL of the image in it."""

    element: Tag
    url: str
    key: str
    thumbnail: str = ""


@dataclass
class PageView:
    """The images of a page by kind (`full`: named or linked in full size; `shown`: not in a link to
    an image; `scripted`: URLs in scripts, by selector), its links to pages, and links that may lead
    to its next pages. `counts` is for the user. With `by_name`, frames are also recognised by class
    names. `unfilled` is true if the page contains templates for scripts."""

    page: Page
    by_name: bool = True
    full: list[ImageUnit] = field(default_factory=list)
    shown: list[ImageUnit] = field(default_factory=list)
    scripted: dict[str, list[str]] = field(default_factory=dict)
    links: list[LinkUnit] = field(default_factory=list)
    next_links: list[LinkUnit] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unfilled: bool = False

    def __post_init__(self) -> None:
        notes: dict[str, int] = {}
        self.soup = make_soup(self.page, notes, MAX_TAGS)
        if notes:
            self.counts[f"page read up to its first {MAX_TAGS} tags"] = 1
        self.url = self.page.url
        self.base = page_base(self.soup, self.url)
        self.host = urlsplit(self.url).netloc
        self.selectors = Selectors(self.soup)
        self._frames: dict[int, bool] = {}
        self._find_units()

    def in_frame(self, tag: Tag) -> bool:
        """Return True if `tag` is inside a header, footer, navigation or the like."""
        if tag.name in ("html", "body", "main", "[document]"):
            return False
        known = self._frames.get(id(tag))
        if known is None:
            parent = tag.parent
            known = is_frame(tag, self.by_name) or (parent is not None and self.in_frame(parent))
            self._frames[id(tag)] = known
        return known

    def _find_units(self) -> None:
        done: set[int] = set()
        text = str(self.page.body[:200_000])
        self.unfilled = "{{" in text or "{%" in text
        elements = self.soup.find_all(True)
        for tag in _relevant_elements(elements):
            if tag.name == "script":
                self._add_script(tag)
            elif tag.name == "a":
                self._add_link(tag, done)
            else:
                self._add_image(tag, done)
        often = Counter(url for url, _ in {(one.thumbnail, one.url) for one in self.links})
        self.links = [
            replace(one, thumbnail="") if often[one.thumbnail] > 1 else one for one in self.links
        ]

    def _add_script(self, tag: Tag) -> None:
        self.counts["scripts"] += 1
        key = 'script[type="application/ld+json"]'
        if "ld+json" not in attribute(tag, "type"):
            key = 'script:not([type="application/ld+json"])'
        for group in script_images(tag, {}):
            url = largest_candidate(group, self.base, {})
            if url and not is_ornament(url):
                self.scripted.setdefault(key, []).append(url)

    def _add_link(self, link: Tag, done: set[int]) -> None:
        href = attribute(link, "href").strip()
        offers = candidates(link, FULL_SIZE_ATTRIBUTES)
        certain = [
            one
            for one in offers
            if one.trust > LINKED or (one.trust == LINKED and looks_like_image(one.url))
        ]
        url = largest_candidate(certain, self.base, {})
        if url:
            self.counts["links to image files"] += 1
            if self.in_frame(link) or is_ornament(url):
                self.counts["images in the page's frame"] += 1
            else:
                self.full.append(ImageUnit(link, url, self.selectors.for_tag(link)))
            done.update(id(one) for one in link.find_all(True))
            return
        target = canonical_url(href, self.base) if href and href[:1] != "#" else None
        if target is None or target == self.url or _NOT_A_PAGE.search(url_path(target)):
            return
        if urlsplit(target).netloc != self.host:
            self.counts["links to other sites"] += 1
            done.update(id(one) for one in link.find_all(True))
            return
        self.counts["links to pages of the site"] += 1
        self._add_page_link(link, target, offers)

    def _add_page_link(self, link: Tag, target: str, offers: list[Candidate]) -> None:
        place = target.removeprefix(f"{urlsplit(target).scheme}://{self.host}")
        if _NOT_GALLERY.search(place):
            return
        thumbnail = (
            largest_candidate([one for one in offers if one.trust < LINKED], self.base, {}) or ""
        )
        if url_path(thumbnail).lower().endswith(".svg"):
            thumbnail = ""
        unit = LinkUnit(link, target, self.selectors.for_tag(link), thumbnail)
        if is_next_link(link):
            self.next_links.append(unit)
        here = self.url.partition(self.host)[2]
        if self.in_frame(link) or is_ornament(thumbnail) or _is_tiny(link.select_one("img")):
            return
        if not thumbnail and _OTHER_LISTS.search(place) and not _OTHER_LISTS.search(here):
            return
        if not _is_above(target, self.url):
            self.links.append(unit)

    def _add_image(self, tag: Tag, done: set[int]) -> None:
        if id(tag) in done:
            return
        if tag.name == "img":
            self.counts["images"] += 1
        notes: dict[str, int] = {}
        groups = attribute_images(tag) or [candidates(tag, FULL_SIZE_ATTRIBUTES)]
        for offers in groups:
            url = largest_candidate(offers, self.base, notes)
            if url is None:
                self.counts.update(f"images without a usable URL ({reason})" for reason in notes)
                continue
            if self.in_frame(tag) or _is_tiny(tag) or is_ornament(url, attribute(tag, "class")):
                self.counts["images in the page's frame"] += 1
                continue
            trust = max(one.trust for one in offers)
            width = max(one.width for one in offers)
            unit = ImageUnit(tag, url, self.selectors.for_tag(tag), width)
            if trust >= POINTED or len(groups) > 1 or (trust >= LINKED and tag.name != "img"):
                self.full.append(unit)
                done.update(id(one) for one in tag.find_all(True))
            else:
                self.shown.append(unit)


def _relevant_elements(elements: list[Tag]) -> Iterator[Tag]:
    """Yield links, scripts, images and other elements with an image URL, outer ones first."""
    for tag in elements:
        attrs = tag.attrs
        wanted = (
            tag.name in ("a", "script")
            or (tag.name == "img" and closest(tag, ("picture",)) is None)
            or tag.name == "picture"
            or (tag.name in ("li", "div", "figure", "span", "article") and "data-src" in attrs)
            or any(name in attrs for name in BACKGROUND_ATTRIBUTES)
            or "background" in str(attrs.get("style", ""))
            or any(name in attrs for name in ("data-nanogallery2", "data-ngsrc"))
            or any(
                isinstance(value, str) and value[:1] in ("[", "{")
                for name, value in attrs.items()
                if name.startswith("data-")
            )
        )
        if wanted:
            yield tag


def _is_tiny(image: Tag | None) -> bool:
    sides = [attribute(image, name) for name in ("width", "height")] if image is not None else []
    return any(re.fullmatch(r"\s*\d{1,4}(px)?\s*", one) and int(re.sub(r"\D", "", one)) <= _MIN_SIDE
               for one in sides)  # fmt: skip


def _is_above(target: str, url: str) -> bool:
    """Return True if `target` is a folder above that of `url`, or the index page of one."""
    here = urlsplit(url).path.rpartition("/")[0] + "/"
    parts = urlsplit(target)
    folder, _, name = parts.path.rpartition("/")
    is_index = not name or re.fullmatch(r"(index|default|home)\.\w+", name) is not None
    return is_index and not parts.query and here.startswith(f"{folder}/") and here != f"{folder}/"

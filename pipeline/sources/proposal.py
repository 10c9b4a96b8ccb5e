"""Looks at a page and proposes how to read the site: the start of a recipe.

Which links lead on and which elements are images is guessed from what repeats: elements that share
a selector. A thumbnail linked to an image file is that image; one linked to a page leads on, and
the first such page is looked at in turn.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag

from pipeline.sources.candidates import FULL_SIZE_ATTRIBUTES, candidates, largest, looks_like_image
from pipeline.sources.interface import Page
from pipeline.sources.picks import attribute
from pipeline.sources.soup import make_soup, page_base
from pipeline.sources.xml import name_of, read_xml
from pipeline.web.urls import canonical_url

MAX_LEVELS = 4
"""Pages looked at, from the start page down to one with an image."""

_FRAME = ("header", "footer", "nav", "aside")
_ORNAMENT = re.compile(r"logo|icon|avatar|badge|sprite|banner|button|flag", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_-]*")
_NEXT_TEXT = re.compile(
    r"\s*((next|older|weiter|suivant|siguiente)\b.{0,12}|[›»→]|>{1,2})\s*", re.IGNORECASE
)

GetPage = Callable[[str], Page | None]


@dataclass
class Proposal:
    """What the recipe should say, and remarks for its author. `private`: the site is on this
    machine or network."""

    start: str
    kind: str = "html"
    follow: list[str] = field(default_factory=list)
    next: str = ""
    image: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    private: bool = False

    def to_toml(self) -> str:
        """The recipe."""
        lines = [f"# {line}" for line in self.remarks]
        lines += [f"title = {json.dumps(urlsplit(self.start).netloc)}", "", "[source]"]
        values = {
            "kind": self.kind, "start": [self.start], "follow": self.follow, "next": self.next,
            "image": self.image, **self.extra,
        }  # fmt: skip
        lines += [
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            for name, value in values.items()
            if value not in ("", [])
        ]
        lines += ["", "[politeness]", "rate = 1", 'contact = ""  # an address or URL of yours']
        if self.private:
            lines += ["allow_private = true  # the site is on this machine or network"]
        return "\n".join(lines) + "\n"


def propose(page: Page, get: GetPage) -> Proposal:
    """A proposal for the site of `page`; `get` fetches a further page, None where it cannot."""
    proposal = Proposal(page.url)
    body = page.body.lstrip()
    if body[:1] in (b"{", b"["):
        _propose_json(proposal, body)
    elif _is_xml(page):
        _propose_xml(proposal, page)
    else:
        _propose_html(proposal, page, get)
    return proposal


# HTML


def _propose_html(proposal: Proposal, page: Page, get: GetPage) -> None:
    host, seen = urlsplit(page.url).netloc, {page.url}
    current = page
    for _ in range(MAX_LEVELS):
        soup = make_soup(current)
        images, links = _groups(soup, current.url, host)
        fresh = {key: urls for key, urls in links.items() if key not in proposal.follow}
        if images and (not fresh or max(map(len, images.values())) > 1):
            break
        if not fresh:
            break
        if not proposal.next:
            proposal.next = _next_selector(soup, current.url, host)
        proposal.follow += fresh
        target = next((url for urls in fresh.values() for url in urls if url not in seen), None)
        found = get(target) if target else None
        if target is None or found is None:
            images = {}
            proposal.remarks.append(f"could not look at {target}")
            break
        seen.add(target)
        current = found
    if not proposal.next and not proposal.follow:
        proposal.next = _next_selector(soup, current.url, host)
    if images:
        proposal.image = max(images, key=lambda key: (len(images[key]), key))
        sample = next(iter(images[proposal.image]))
        proposal.remarks.append(f"{len(images[proposal.image])} on {current.url}")
        proposal.remarks.append(f"the first: {sample}")
    else:
        proposal.remarks.append(f"no image found on {current.url}{_why(soup)}")


def _why(soup: BeautifulSoup) -> str:
    text = str(soup)
    if "{{" in text or "{%" in text:
        return ": it holds unfilled templates, so scripts draw it; look for the API they ask"
    if not soup.select("img") and len(soup.select("script")) > 2:
        return ": it has scripts and no images, so scripts draw it; look for the API they ask"
    return ""


Groups = dict[str, dict[str, None]]
"""Selectors and the URLs they give, in the order of the page."""


def _groups(soup: BeautifulSoup, url: str, host: str) -> tuple[Groups, Groups]:
    """The images and the links to pages of a page, by selector. Of images only those of the best
    kind: linked or named in full size, else thumbnails that lead nowhere."""
    base = page_base(soup, url)
    full: Groups = {}
    shown: Groups = {}
    links: Groups = {}
    selectors = Selectors(soup)
    for link in soup.select("a[href]"):
        if _in_frame(link):
            continue
        big = any(link.get(name) for name in FULL_SIZE_ATTRIBUTES)
        target = canonical_url(attribute(link, "href"), base)
        if big or looks_like_image(attribute(link, "href")):
            image = largest(candidates(link, FULL_SIZE_ATTRIBUTES), base, {})
            if image:
                full.setdefault(selectors.of(link), {})[image] = None
        elif target and link.select_one("img") and _leads_on(link, target, url, host):
            links.setdefault(selectors.of(link), {})[target] = None
    for image_tag in soup.select("img"):
        around = image_tag.find_parent("a")
        if _in_frame(image_tag) or _is_small(image_tag) or (around and around.get("href")):
            continue
        image = largest(candidates(image_tag, FULL_SIZE_ATTRIBUTES), base, {})
        if image:
            shown.setdefault(selectors.of(image_tag), {})[image] = None
    return full or shown, {key: urls for key, urls in links.items() if urls}


def _leads_on(link: Tag, target: str, url: str, host: str) -> bool:
    image = link.select_one("img")
    above = urlsplit(url).path.rpartition("/")[0] + "/"
    return (
        urlsplit(target).netloc == host
        and target != url
        and not above.startswith(urlsplit(target).path.rstrip("/") + "/")
        and image is not None
        and not _ORNAMENT.search(f"{image.get('src')} {image.get('class')} {link.get('class')}")
    )


def _in_frame(tag: Tag) -> bool:
    return tag.find_parent(_FRAME) is not None


def _is_small(image: Tag) -> bool:
    width = re.match(r"\d+", attribute(image, "width"))
    return bool(_ORNAMENT.search(f"{image.get('src')} {image.get('class')}")) or (
        width is not None and int(width[0]) <= 64
    )


class Selectors:
    """Short selectors that tags of a page share with their like."""

    def __init__(self, soup: BeautifulSoup) -> None:
        self._counts = Counter(
            (tag.name, name) for tag in soup.find_all(True) for name in _classes(tag)
        )

    def of(self, tag: Tag) -> str:
        """The tag's name with its most shared class, and those of the closest element around it
        that has a class or an id."""
        own = self._own(tag)
        for parent in tag.parents:
            if parent.name in ("html", "body", "[document]"):
                break
            outer = self._own(parent)
            if outer != parent.name:
                return f"{outer} {own}"
        return own

    def _own(self, tag: Tag) -> str:
        classes = _classes(tag)
        if classes:
            return f"{tag.name}.{max(classes, key=lambda name: self._counts[tag.name, name])}"
        identity = attribute(tag, "id")
        return f"#{identity}" if _PLAIN_NAME.fullmatch(identity) else tag.name


def _classes(tag: Tag) -> list[str]:
    return [name for name in attribute(tag, "class").split() if _PLAIN_NAME.fullmatch(name)]


def _next_selector(soup: BeautifulSoup, url: str, host: str) -> str:
    if soup.select_one("a[rel~=next][href], link[rel~=next][href]"):
        return "[rel~=next]"
    selectors = Selectors(soup)
    for link in soup.select("a[href]"):
        target = canonical_url(attribute(link, "href"), url)
        same = target is not None and urlsplit(target).netloc == host and target != url
        if same and ("next" in _classes(link) or _NEXT_TEXT.fullmatch(link.get_text())):
            selector = selectors.of(link)
            if len(soup.select(selector)) == 1:
                return selector
    return ""


# JSON and XML


def _is_xml(page: Page) -> bool:
    head = page.body.lstrip()[:200].lower()
    kind = page.headers.get("content-type", "")
    return head[:2] == b"\x1f\x8b" or (
        b"<html" not in head and (head.startswith(b"<?xml") or "xml" in kind)
    )


def _propose_xml(proposal: Proposal, page: Page) -> None:
    root, problem = read_xml(page.body)
    name = "" if root is None else name_of(root)
    proposal.kind = "feed" if name in ("rss", "feed", "RDF") else "sitemap"
    if root is None:
        proposal.remarks.append(problem)
    elif proposal.kind == "sitemap":
        named = any(name_of(one) == "image" for one in root.iter() if isinstance(one.tag, str))
        proposal.extra["take"] = "sitemap" if named else "pages"
        if not named:
            proposal.remarks.append("say with image, item, include … what to take from the pages")


def _propose_json(proposal: Proposal, body: bytes) -> None:
    proposal.kind = "json"
    try:
        data = json.loads(body)
    except ValueError as error:
        proposal.remarks.append(f"not JSON ({error})")
        return
    kind = str(data.get("type") or data.get("@type") or "") if isinstance(data, dict) else ""
    if kind.removeprefix("sc:") in ("Manifest", "Collection"):
        proposal.kind = "iiif"
        return
    counts: Counter[tuple[str, str]] = Counter(_image_paths(data, "", ""))
    if not counts:
        proposal.remarks.append("no URLs of images in it")
        return
    (items, image), count = counts.most_common(1)[0]
    proposal.remarks.append(f"{count} images in {items or 'the answer'}")
    proposal.extra["items"] = items or "@"
    proposal.image = f"item.{image}" if image else "item"
    if isinstance(data, dict) and isinstance(data.get("next"), str):
        proposal.remarks.append('next page: next = { by = "url", value = "next" }')
    else:
        proposal.remarks.append("say how the next page is asked for: [source.next]")


def _image_paths(node: Any, items: str, path: str) -> Iterator[tuple[str, str]]:
    """(path of the list, path inside its records) of every URL of an image."""
    if isinstance(node, dict):
        for name, value in node.items():
            key = name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)
            yield from _image_paths(value, items, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        outer = f"{items}.{path}" if items and path else items or path
        for value in node:
            yield from _image_paths(value, f"{outer}[]", "")
    elif isinstance(node, str) and canonical_url(node) and looks_like_image(node):
        yield items, path

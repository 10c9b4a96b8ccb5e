"""Proposes a recipe for the site of a page.

For HTML, the links and images are inferred from repeated elements and by visiting a few further
pages (`site_survey`, `html_proposal`).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.outside_text import decode_text, parse_json
from pipeline.sources.html import not_html
from pipeline.sources.html_proposal import find_recipe
from pipeline.sources.image_urls import looks_like_image
from pipeline.sources.interface import Page
from pipeline.sources.site_survey import survey_site
from pipeline.sources.site_visits import GetPage
from pipeline.sources.xml import children, name_of, read_xml, starts_with, text_of
from pipeline.units import count_of
from pipeline.web.urls import canonical_url

PRIVATE_RATE = 50
"""Requests per second to this machine or network; 1 to others."""


def is_private(url: str) -> bool:
    """Return True if the host is this machine, or an address in the private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


@dataclass
class Proposal:
    """The keys of a recipe, and comments for its author. `private` allows a site on this machine or
    network."""

    start: str
    kind: str = "html"
    follow: list[str] = field(default_factory=list)
    next: str = ""
    image: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    private: bool = False

    def to_toml(self) -> str:
        """Return the text of the recipe."""
        lines = [f"# {line}" for line in self.comments]
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
        rate = PRIVATE_RATE if self.private and is_private(self.start) else 1
        lines += ["", "[politeness]", f"rate = {rate}  # requests per second"]
        lines += ['contact = ""  # your e-mail address or URL']
        if self.private:
            lines += ["allow_private = true  # the site is on this machine or network"]
        return "\n".join(lines) + "\n"


def propose(page: Page, get: GetPage) -> Proposal:
    """Return a proposal for the site of `page`. `get` fetches a further page or returns None.

    Raises:
        UserError: the response is neither HTML nor JSON nor XML.
    """
    proposal = Proposal(page.url)
    if _is_json(page.body):
        _propose_json(proposal, page.body)
    elif _is_xml(page):
        _propose_xml(proposal, page)
    elif problem := not_html(page):
        raise UserError(f"{page.url}: {problem}; use the URL of a page, a feed or an API")
    else:
        found = find_recipe(survey_site(page, get))
        proposal.follow, proposal.next, proposal.image = found.follow, found.next, found.image
        proposal.extra, proposal.comments = found.extra, found.remarks
    return proposal


# JSON and XML


def _is_json(body: bytes) -> bool:
    return starts_with(body, "{", "[")


def _is_xml(page: Page) -> bool:
    kind = page.headers.get("content-type", "").lower()
    head = decode_text(page.body.lstrip()[:200]).lower()
    return page.body[:2] == b"\x1f\x8b" or (
        "<html" not in head and (starts_with(page.body, "<?xml") or "xml" in kind)
    )


def _propose_xml(proposal: Proposal, page: Page) -> None:
    root, problem = read_xml(page.body)
    name = "" if root is None else name_of(root)
    proposal.kind = "feed" if name in ("rss", "feed", "RDF") else "sitemap"
    if root is None:
        proposal.comments.append(problem)
    elif proposal.kind == "sitemap":
        named = any(name_of(one) == "image" for one in root.iter() if isinstance(one.tag, str))
        proposal.extra["take"] = "sitemap" if named else "pages"
        if not named:
            proposal.comments.append("set image, item, include … to select the images on the pages")
        urls = (canonical_url(text_of(one, "loc"), page.url) for one in children(root, "url"))
        here = urlsplit(page.url).netloc
        if not named and any(urlsplit(url).netloc != here for url in urls if url):
            proposal.comments.append("pages on other hosts are followed only with offsite = true")


def _propose_json(proposal: Proposal, body: bytes) -> None:
    proposal.kind = "json"
    try:
        data = parse_json(body)
        counts: Counter[tuple[str, str]] = Counter(_image_paths(data, "", ""))
    except ValueError as error:
        proposal.comments.append(f"not JSON ({error})")
        return
    except RecursionError:
        proposal.comments.append("the JSON is nested too deeply")
        return
    kind = str(data.get("type") or data.get("@type") or "") if isinstance(data, dict) else ""
    if kind.removeprefix("sc:") in ("Manifest", "Collection"):
        proposal.kind = "iiif"
        return
    if not counts:
        proposal.comments.append("no image URLs found")
        return
    (items, image), count = counts.most_common(1)[0]
    proposal.comments.append(f"{count_of(count, 'image')} in {items or 'the response'}")
    proposal.extra["items"] = items or "@"
    proposal.image = f"item.{image}" if image else "item"
    if isinstance(data, dict) and isinstance(data.get("next"), str):
        proposal.comments.append('next page: next = { by = "url", value = "next" }')
    else:
        proposal.comments.append("set [source.next]: how to request the next page")


def _image_paths(node: Any, items: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path of the list, path in its records) for each image URL."""
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

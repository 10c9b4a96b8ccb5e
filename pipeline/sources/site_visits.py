"""Visits a few pages of a site: a few links per group (links with the same selector). Groups links
of one kind, sizes of one image, and pages of a list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.sources.image_urls import url_path
from pipeline.sources.interface import Page
from pipeline.sources.page_view import ImageUnit, LinkUnit, PageView

MAX_PAGES = 16
"""Maximum number of pages to visit."""
MAX_DEPTH = 5
_PER_GROUP = 3
_PER_PAGE = 2

GetPage = Callable[[str], Page | None]

SIZE_SUFFIX = re.compile(
    r"([-_.](thumb(nail)?|small|medium|large|orig(inal)?|full|scaled|web|preview|tn|sq|\d+x\d+"
    r"|\d+(w|px)))+$"
)


@dataclass
class Visit:
    """A visited page, the page that links to it (`parent`), and the group of that link (`through`).

    `units` and `wanted` (URLs) are the images of the gallery on this page."""

    view: PageView
    depth: int
    parent: Visit | None = None
    through: str = ""
    wanted: set[str] = field(default_factory=set)
    units: list[ImageUnit] = field(default_factory=list)
    children: list[Visit] = field(default_factory=list)

    @property
    def productive(self) -> bool:
        """Whether this page, or a page visited through it, has images of the gallery."""
        return bool(self.wanted) or any(one.productive for one in self.children)

    def images_below(self) -> set[str]:
        """Return the URLs of images of this page and of the pages visited through it."""
        return self.wanted.union(*(one.images_below() for one in self.children))


class SiteVisits:
    """The pages visited from `start`, in order (`visits`), and the URLs that could not be fetched
    (`unreachable`)."""

    def __init__(self, start: Page, get: GetPage, by_name: bool) -> None:
        self._get = get
        self._by_name = by_name
        self.seen = {start.request.url, start.url}
        self._per_group: Counter[str] = Counter()
        self._image_groups: set[str] = set()
        self._bodies = {start.body}
        self.unreachable: list[str] = []
        first = Visit(PageView(start, by_name), 0)
        self.visits = [first]
        self._visit_links(first)
        self._add_image_groups()

    def _visit_links(self, first: Visit) -> None:
        queue = [first]
        while queue:
            visit = queue.pop(0)
            if visit.depth >= MAX_DEPTH:
                continue
            for link in self._samples(visit):
                if len(self.visits) >= MAX_PAGES:
                    return
                child = self.visit(visit, link)
                if child is not None:
                    queue.append(child)

    def visit(self, visit: Visit, link: LinkUnit) -> Visit | None:
        """Visit the page behind a link. Return None if it fails, is an image, or was visited."""
        self.seen.add(link.url)
        page = self._get(link.url)
        if page is None or not page.body:
            self.unreachable.append(link.url)
            return None
        if page.headers.get("content-type", "").lower().startswith("image/"):
            self._image_groups.add(link.key)
            return None
        if (page.url != link.url and page.url in self.seen) or page.body in self._bodies:
            return None
        self._bodies.add(page.body)
        self.seen.add(page.url)
        child = Visit(PageView(page, self._by_name), visit.depth + 1, visit, link.key)
        visit.children.append(child)
        self.visits.append(child)
        return child

    def _samples(self, visit: Visit) -> Iterator[LinkUnit]:
        """Yield a few links of each group that have not been followed yet, thumbnails first."""
        groups: dict[str, list[LinkUnit]] = {}
        behind = {link.url for link in visit.view.links if link.thumbnail}
        for link in visit.view.links:
            if link.thumbnail or link.url not in behind:
                groups.setdefault(group_key(link), []).append(link)
        order = sorted(groups, key=lambda key: not groups[key][0].thumbnail)
        text_groups = 0
        for key in order:
            is_text = not groups[key][0].thumbnail
            text_groups += is_text
            if is_text and (text_groups > 4 or visit.view.full):
                continue
            count = 0
            for link in groups[key]:
                if count >= _PER_PAGE or self._per_group[key] >= _PER_GROUP:
                    break
                if link.url not in self.seen:
                    count += 1
                    self._per_group[key] += 1
                    yield link

    def _add_image_groups(self) -> None:
        """Treat all links of a group as links to images if one of them returned an image."""
        for visit in self.visits:
            view = visit.view
            found = [link for link in view.links if link.key in self._image_groups]
            view.full += [ImageUnit(link.element, link.url, link.key) for link in found]
            view.links = [link for link in view.links if link not in found]


def folder_of(url: str) -> str:
    """Return the folder of a page: `/a/b/` for `/a/b/` and for `/a/b/x.html`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/"


def image_stem(url: str) -> str:
    """Return the file name of an image without its extension and the name of a size."""
    name = url_path(url).rpartition("/")[2].rpartition(".")[0].lower()
    name = re.sub(r"^(thumb(nail)?s?|tn|small|preview|mini)[-_.]+", "", name)
    return SIZE_SUFFIX.sub("", name)


def group_key(link: LinkUnit) -> str:
    """Return the group of a link. Thumbnails and text links are in different groups."""
    return f"{link.key} {'image' if link.thumbnail else 'text'}"


def listing_keys(view: PageView) -> set[str]:
    """Return the selectors of lists of two or more thumbnails that lead to pages."""
    targets: dict[str, set[str]] = {}
    for link in view.links:
        if link.thumbnail:
            targets.setdefault(link.key, set()).add(link.url)
    return {key for key, urls in targets.items() if len(urls) > 1}


def without_renditions(units: list[ImageUnit]) -> list[ImageUnit]:
    """Return one unit per image: if two groups show the same images, that of the originals."""
    groups: dict[str, dict[str, ImageUnit]] = {}
    for unit in units:
        groups.setdefault(unit.key, {})[image_stem(unit.url)] = unit
    dropped: set[str] = set()
    keys = list(groups)
    for first in keys:
        for second in keys:
            same = groups[first].keys() & groups[second].keys()
            differ = any(groups[first][stem].url != groups[second][stem].url for stem in same)
            if first < second and differ and len(same) * 2 > len(groups[first]):
                one, two = groups[first], groups[second]
                dropped.add(first if _originality(two) > _originality(one) else second)
    return [unit for unit in units if unit.key not in dropped]


def _originality(group: dict[str, ImageUnit]) -> tuple[bool, bool, float]:
    unit = next(iter(group.values()))
    text = f"{unit.element.get_text()} {unit.element.get('class')} {unit.url}".lower()
    return (
        unit.element.get("download") is not None,
        re.search(r"orig|full|download|large|raw|high|max", text) is not None,
        -float(unit.element.select_one("img") is not None),
    )


def same_list(url: str, other: str) -> bool:
    """Return True if `other` may be another page of the same list as `url`: they differ only in a
    page number or in the query."""
    one, two = urlsplit(url), urlsplit(other)
    if one.netloc != two.netloc:
        return False
    if one.path == two.path and one.query != two.query:
        return True
    return _without_number(one.path) == _without_number(two.path)


def _without_number(path: str) -> str:
    text = re.sub(r"(/|[-_.]?)(page|p|pg|seite|index|start)?[-_/.]?\d+(?=/?$|\.\w+$)", "", path)
    text = re.sub(r"(^|/)(index|default|page)?(\.\w+)?/?$", "", text)
    return re.sub(r"\.\w+$", "", text)

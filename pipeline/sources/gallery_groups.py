"""Groups elements and URLs of a gallery: links of one kind, sizes of one image, pages of a list."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pipeline.sources.image_urls import url_path
from pipeline.sources.page_view import ImageUnit, LinkUnit, PageView

SIZE_SUFFIX = re.compile(
    r"([-_.](thumb(nail)?|small|medium|large|orig(inal)?|full|scaled|web|preview|tn|sq|\d+x\d+"
    r"|\d+(w|px)))+$"
)


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

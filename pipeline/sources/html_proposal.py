"""Proposes a recipe for an HTML gallery from a survey of the site.

Selectors are tried on the surveyed pages, simplest first. The first one that selects the right
elements on all pages, and no others, is proposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bs4 import Tag

from pipeline.sources.candidates import FULL_SIZE_ATTRIBUTES
from pipeline.sources.html import parse_soup
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.image_urls import looks_like_image, url_path
from pipeline.sources.link_selectors import (
    IN_FRAME,
    allowed_links,
    follow_selector,
    followed_links,
    frame_selectors,
    is_next,
    link_targets,
    next_page_links,
    next_selector,
)
from pipeline.sources.page_parts import Selectors
from pipeline.sources.page_view import LinkUnit, PageView
from pipeline.sources.site_survey import SiteSurvey
from pipeline.sources.site_visits import Visit
from pipeline.sources.text_selectors import ImageSelectorOptions, attribute
from pipeline.sources.url_rules import is_allowed
from pipeline.units import count_of

_COMMON_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif")
_LISTS = r"[/?](tags?|categor(y|ies)|archives?|authors?|feed|rss|login|search)([/?=.]|$)"


@dataclass
class HtmlFindings:
    """The keys of the recipe, and comments."""

    follow: list[str] = field(default_factory=list)
    next: str = ""
    image: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def find_recipe(survey: SiteSurvey) -> HtmlFindings:
    """Return the recipe that extracts the images of the gallery found by the survey."""
    found = HtmlFindings()
    wanted = [visit for visit in survey.visits if visit.wanted]
    if not wanted:
        found.remarks = list(_why_nothing(survey))
        return found
    found.image, exclude = _image_selector(survey)
    exclude += survey.exclude
    if exclude:
        found.extra["exclude"] = exclude
    next_links = {visit.view.url: next_page_links(survey, visit) for visit in survey.visits}
    if any(next_links.values()):
        found.next = next_selector(survey, next_links)
    groups = [key for key in survey.follow if not is_next(survey, key, found.next)]
    found.follow = [follow_selector(survey, key, next_links) for key in groups]
    found.follow = list(dict.fromkeys(found.follow))
    if found.follow or found.next:
        scope = _scope(survey)
        others = _other_lists(survey, [*found.follow, found.next], next_links)
        found.extra |= {"follow_include": [scope]} if scope else {}
        found.extra |= {"follow_exclude": others} if others else {}
    total = set[str]().union(*(visit.wanted for visit in wanted))
    total = {url for url in total if is_allowed(url, (), tuple(exclude))}
    pages = count_of(len(survey.visits), "page")
    found.remarks.append(f"{count_of(len(total), 'image')} on {pages} visited; the first:")
    found.remarks.append(min(total))
    return found


# images


def _image_selector(survey: SiteSurvey) -> tuple[str, list[str]]:
    """Return the best selector, and patterns that exclude other images that it selects."""
    if survey.kind.startswith("script"):
        return survey.kind, []
    best, best_score, best_extra = "", (-1.0, 0), set[str]()
    for order, selector in enumerate(dict.fromkeys(_image_selectors(survey))):
        missing, extra = 0, set[str]()
        for visit in survey.visits:
            selected = _selected_images(visit, selector)
            missing += len(visit.wanted - selected)
            extra |= selected - visit.wanted
        if not missing and not extra:
            return selector, []
        score = (-(4.0 * missing + len(extra)), -order)
        if score > best_score or not best:
            best, best_score, best_extra = selector, score, extra
    patterns = sorted(f"^{re.escape(url)}$" for url in best_extra)
    return best, patterns[:20]


def _selected_images(visit: Visit, selector: str) -> set[str]:
    """Return the URLs of the images that a selector selects on a surveyed page."""
    config = HtmlSource(start=(visit.view.url,), image=ImageSelectorOptions(selector))
    result = parse_soup(config, visit.view.soup, visit.view.page, {})
    return {one.url for one in result.images}


def _image_selectors(survey: SiteSurvey) -> Iterator[str]:
    units = [unit for visit in survey.visits for unit in visit.units]
    visits = [visit for visit in survey.visits if visit.units]
    if all(unit.element.name == "a" for unit in units) and survey.kind == "full":
        plain = _link_selector([unit.element for unit in units])
        if plain:
            yield f"{plain}:not({IN_FRAME})"
            for outer in _common_places(survey):
                yield ", ".join(f"{outer} {one}" for one in plain.split(", "))
            yield from _classes_in_all(survey)
    elif all(unit.element.name == "img" for unit in units) and survey.kind == "shown":
        yield f"img:not(a *, {IN_FRAME})"
        yield f"img:not({IN_FRAME})"
    names = Counter(unit.element.name for unit in units)
    for attr in (*FULL_SIZE_ATTRIBUTES, "data-src", "data-image"):
        if units and all(unit.element.get(attr) for unit in units):
            yield f"[{attr}]:not({IN_FRAME})"
            yield from (f"{name}[{attr}]:not({IN_FRAME})" for name in names)
    keys = list(dict.fromkeys(unit.key for visit in visits for unit in visit.units))
    yield from _classes_in_all(survey)
    for outer in _common_places(survey):
        yield ", ".join(f"{outer} {name}" for name in names)
        yield ", ".join(f"{outer} {name}:not(a *)" for name in names)
    if len(keys) <= 6:
        suffix = " img" if survey.kind == "thumbnail" else ""
        yield ", ".join(f"{key}{suffix}" for key in keys)
    frames = frame_selectors(survey)
    if frames:
        inside = ", ".join(f"{frame} *" for frame in frames)
        for name in names:
            yield f"{name}:not(a *, {IN_FRAME}, {inside})"
            yield f"{name}:not({IN_FRAME}, {inside})"
        if survey.kind == "full":
            plain = _link_selector([unit.element for unit in units if unit.element.name == "a"])
            if plain:
                yield f"{plain}:not({IN_FRAME}, {inside})"


def _link_selector(links: list[Tag]) -> str:
    """Return a selector of links to files with the extensions of these links; empty if one of them
    is not a link to an image."""
    extensions: dict[str, None] = dict.fromkeys(_COMMON_EXTENSIONS)
    query = False
    for link in links:
        href = attribute(link, "href").strip()
        if not looks_like_image(href):
            return ""
        extensions[url_path(href).rpartition(".")[2].lower()] = None
        query = query or "?" in href
    kinds = [f'[href$=".{one}" i]' for one in extensions]
    if query:
        kinds += [f'[href*=".{one}?" i]' for one in extensions]
    return f"a:is({', '.join(kinds)})"


def _classes_in_all(survey: SiteSurvey) -> Iterator[str]:
    """Yield selectors (tag and class) that match the elements of all images."""
    common: set[str] | None = None
    for visit in survey.visits:
        for unit in visit.units:
            own = {f"{unit.element.name}.{one}" for one in attribute(unit.element, "class").split()
                   if re.fullmatch(r"[A-Za-z][\w-]*", one)}  # fmt: skip
            common = own if common is None else common & own
    yield from sorted(common or ())


def _common_places(survey: SiteSurvey) -> Iterator[str]:
    """Yield selectors of elements around the images that exist on all pages with images, closest
    first."""
    common: list[str] | None = None
    for visit in survey.visits:
        selectors = Selectors(visit.view.soup) if visit.units else None
        for unit in visit.units[:20]:
            assert selectors is not None
            around = list(selectors.around(unit.element))
            common = around if common is None else [one for one in common if one in around]
    yield from common or ()


# links


def _scope(survey: SiteSurvey) -> str:
    """Return a pattern for the folder that contains all pages of the gallery; empty for the whole
    site."""
    pages = [visit.view.url for visit in survey.visits]
    pages += followed_links(survey)
    parts = [urlsplit(url).path.split("/")[1:-1] for url in pages]
    common: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    if not common:
        return ""
    first = urlsplit(pages[0])
    # The URL of a folder may lack its last slash.
    return f"^{re.escape(f'{first.scheme}://{first.netloc}/' + '/'.join(common))}(/|$)"


def _other_lists(
    survey: SiteSurvey, selectors: list[str], next_links: dict[str, list[LinkUnit]]
) -> list[str]:
    """Return a pattern that excludes lists such as tags and archives, if the selectors lead to
    them."""
    allowed = allowed_links(survey, next_links)
    others = {
        url
        for visit in survey.visits
        for selector in filter(None, selectors)
        for url in link_targets(visit, selector) - allowed[visit.view.url]
    }
    known = {visit.view.url for visit in survey.visits}
    leaves = any(re.search(_LISTS, url) for url in others)
    return [_LISTS] if leaves and not any(re.search(_LISTS, url) for url in known) else []


# nothing found


def describe_page(view: PageView) -> str:
    """Return the counts of elements on a page, and whether scripts build it."""
    seen = _listed(view.counts)
    return ", ".join(filter(None, [seen or "no link and no image", _drawn_by_scripts([view])]))


def _drawn_by_scripts(views: list[PageView]) -> str:
    if any(view.unfilled for view in views):
        return "it contains unfilled templates, so scripts build it; look for the API that they use"
    scripts = sum(view.counts["scripts"] for view in views)
    if scripts and not any(view.counts["images"] for view in views):
        return "it has scripts and no images, so scripts build it; look for the API that they use"
    return ""


def _listed(counts: Mapping[str, int]) -> str:
    """Return counts as text, such as `1 link to other sites`; the keys begin with a plural."""
    words = [(count, *what.partition(" ")) for what, count in counts.items()]
    return ", ".join(
        count_of(count, noun.removesuffix("s")) + space + rest for count, noun, space, rest in words
    )


def _why_nothing(survey: SiteSurvey) -> Iterable[str]:
    visits = [*survey.visits, *survey.others]
    counts = Counter[str]()
    for visit in visits:
        counts.update(visit.view.counts)
    pages = count_of(len(visits), "page")
    seen = _listed(counts) or "no link and no image"
    yield f"no image found on {survey.start.view.url} and behind it; visited {pages}: {seen}"
    if survey.unreachable:
        unread = f"could not read {count_of(len(survey.unreachable), 'page')}, the first: "
        yield unread + survey.unreachable[0]
    drawn = _drawn_by_scripts([visit.view for visit in visits])
    if drawn:
        yield drawn

"""Proposes CSS selectors for the links to follow, from a survey of a site."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.sources.html import parse_soup
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.page_parts import FRAME_TAGS, Selectors, is_frame
from pipeline.sources.page_view import LinkUnit
from pipeline.sources.site_survey import SiteSurvey
from pipeline.sources.site_visits import Visit, same_list
from pipeline.sources.text_selectors import ImageSelectorOptions, attribute

IN_FRAME = ", ".join(f"{name} *" for name in FRAME_TAGS)


def frame_selectors(survey: SiteSurvey) -> list[str]:
    """Return selectors of headers, lists of related pages and the like, found by their names."""
    found: dict[str, None] = {}
    for visit in survey.visits:
        selectors = Selectors(visit.view.soup)
        for tag in visit.view.soup.find_all(True):
            if tag.name not in (*FRAME_TAGS, "html", "body", "main") and is_frame(tag):
                identity = attribute(tag, "id")
                own = selectors.own(tag)
                if own == tag.name and re.fullmatch(r"[A-Za-z][\w-]*", identity):
                    own = f"#{identity}"
                if own != tag.name:
                    found[own] = None
    return list(found)[:12]


def next_page_links(survey: SiteSurvey, visit: Visit) -> list[LinkUnit]:
    """Return the links of a page to further pages of its list."""
    chain = visit is survey.start and len(visit.wanted) == 1 and not survey.follow
    units = [
        link
        for link in visit.view.next_links
        if same_list(visit.view.url, link.url) or (chain and not link.thumbnail)
    ]
    is_list = len(visit.wanted) > 1 or any(one.through in survey.follow for one in visit.children)
    return units if is_list or chain else []


def next_selector(survey: SiteSurvey, next_links: dict[str, list[LinkUnit]]) -> str:
    """Return the first selector that selects a next page on each page of a list and nothing else;
    empty if there is none."""
    allowed = allowed_links(survey, next_links)
    pages = [visit for visit in survey.visits if next_links[visit.view.url]]
    rels = [
        [attribute(one.element, "rel") for one in next_links[visit.view.url]] for visit in pages
    ]
    if all(any("next" in rel.split() for rel in page_rels) for page_rels in rels):
        selectors = ["a[rel~=next]", "[rel~=next]"]
    else:
        selectors = []
    keys = list(dict.fromkeys(one.key for visit in pages for one in next_links[visit.view.url]))
    selectors += keys
    for visit in pages:
        for one in next_links[visit.view.url]:
            selectors += [f"{outer} a" for outer in visit.view.selectors.around(one.element)]
    selectors += [", ".join(keys), *_selectors_by_url(next_links)]
    for selector in dict.fromkeys(selectors):
        if all(
            link_targets(visit, selector) <= allowed[visit.view.url]
            and {one.url for one in next_links[visit.view.url]} & link_targets(visit, selector)
            for visit in pages
        ) and all(link_targets(one, selector) <= allowed[one.view.url] for one in survey.visits):
            return selector
    return ""


def _selectors_by_url(next_links: dict[str, list[LinkUnit]]) -> Iterator[str]:
    """Yield selectors that match the part of a URL before a page number."""
    for links in next_links.values():
        for link in links:
            href = attribute(link.element, "href")
            match = re.match(r"(.*?[^\d/]*[/=_-]?)\d+[^\d]*$", href)
            if match and len(match[1]) > 2 and re.fullmatch(r"[\w./?=&%:~+-]+", match[1], re.ASCII):
                yield f'a[href^="{match[1]}"]'
            match = re.search(r"([?&/](page|paged|p|pg|start|offset)[=/-]|start-)\d", href)
            if match:
                yield f'a[href*="{match[1]}"]'


def is_next(survey: SiteSurvey, key: str, selector: str) -> bool:
    """Return True if the selector of next pages makes it unnecessary to follow a group."""
    if not selector:
        return False
    for visit in survey.visits:
        links = {link.url for link in visit.view.links if link.key == key}
        following = {link.url for link in visit.view.next_links}
        covered = link_targets(visit, selector)
        if (links & following) - covered or (links - following) & _surveyed_urls(survey):
            return False
    return True


def _surveyed_urls(survey: SiteSurvey) -> set[str]:
    return {visit.view.page.request.url for visit in survey.visits}


def follow_selector(survey: SiteSurvey, key: str, next_links: dict[str, list[LinkUnit]]) -> str:
    """Return the selector of a group, narrowed to select as few other links as possible."""
    allowed = allowed_links(survey, next_links)
    links = [link for visit in survey.visits for link in visit.view.links if link.key == key]
    with_image = all(link.thumbnail for link in links)
    options = [key]
    if with_image:
        options += [f"{key}:has(img)", f"{key}:has(> img)"]
    options += [f"{one}:not({IN_FRAME})" for one in options]
    frames = frame_selectors(survey)
    if frames:
        inside = ", ".join(f"{frame} *" for frame in frames)
        options += [f"{one}:not({IN_FRAME}, {inside})" for one in options[: 3 if with_image else 1]]
    own = key.split()[-1]
    for visit in survey.visits:
        for link in visit.view.links:
            if link.key == key:
                places = list(visit.view.selectors.around(link.element))[:4]
                options += [f"{outer} {own}" for outer in places]
    return min(
        dict.fromkeys(options),
        key=lambda selector: sum(
            len(link_targets(visit, selector) - allowed[visit.view.url]) for visit in survey.visits
        ),
    )


def allowed_links(survey: SiteSurvey, next_links: dict[str, list[LinkUnit]]) -> dict[str, set[str]]:
    """Return, for each page, the URLs that may be followed from it."""
    known = {visit.view.url for visit in survey.visits}
    known |= {visit.view.page.request.url for visit in survey.visits}
    return {
        visit.view.url: known
        | {link.url for link in visit.view.links if link.key in survey.follow}
        | {link.url for link in next_links[visit.view.url]}
        | {link.url for link in visit.view.next_links if same_list(visit.view.url, link.url)}
        | {link.url for link in visit.view.next_links if link.url in followed_links(survey)}
        for visit in survey.visits
    }


def followed_links(survey: SiteSurvey) -> set[str]:
    return {
        link.url
        for visit in survey.visits
        for link in visit.view.links
        if link.key in survey.follow
    }


def link_targets(visit: Visit, selector: str) -> set[str]:
    """Return the URLs of the pages that a selector leads to from a surveyed page."""
    config = HtmlSource(
        start=(visit.view.url,), image=ImageSelectorOptions("x"), follow=(selector,)
    )
    result = parse_soup(config, visit.view.soup, visit.view.page, {})
    return {one.url for one in result.follow} - visit.wanted

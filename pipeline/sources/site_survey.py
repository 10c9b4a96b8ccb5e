"""Decides what belongs to a gallery, from a few pages of its site.

A page is part of the gallery if it has images of the gallery's kind, or links to a page that has. A
thumbnail that links to a page is not an image of the gallery; the larger image is on that page.
"""

from __future__ import annotations

import re
from collections import Counter

from pipeline.sources.image_urls import url_path
from pipeline.sources.interface import Page
from pipeline.sources.page_view import ImageUnit, LinkUnit
from pipeline.sources.site_visits import (
    SIZE_SUFFIX,
    GetPage,
    SiteVisits,
    Visit,
    folder_of,
    image_stem,
    listing_keys,
    without_renditions,
)


class SiteSurvey:
    """Surveys a site. The results are the `visits` to pages of the gallery, in order, and `others`;
    the `kind` of images; the groups of links to `follow`; and patterns of images to `exclude`."""

    def __init__(self, start: Page, get: GetPage, by_name: bool = True) -> None:
        self._site = SiteVisits(start, get, by_name)
        self.visits, self.unreachable = self._site.visits, self._site.unreachable
        self.kind = self._choose_kind()
        for visit in self.visits:
            self._choose_images(visit)
        self.follow = self._choose_follow()
        self._drop_other_pages()
        self.exclude = self._find_larger_versions() if self.kind == "shown" else []

    @property
    def start(self) -> Visit:
        return self.visits[0]

    def _choose_kind(self) -> str:
        """Return the kind of the gallery's images."""
        full = [visit for visit in self.visits if visit.view.full]
        shown_only = [
            visit for visit in self.visits if not visit.view.full and self.main_shown(visit)
        ]
        full_urls = {unit.url for visit in full for unit in visit.view.full}
        scripts = self._scripted()
        best = max(scripts, key=lambda key: len(scripts[key]), default="")
        shown = {unit.url for visit in self.visits for unit in self.main_shown(visit)}
        if full and len(full) >= len(shown_only):
            beside = {unit.url for visit in full for unit in self.main_shown(visit)}
            if len(beside) > 2 * len(full_urls) + 2:
                return "shown"
            if best and len(scripts[best]) > len(full_urls) and scripts[best] >= full_urls:
                return best
            return "full"
        if best and len(scripts[best]) >= max(2, len(shown)):
            return best
        if shown:
            return "shown"
        if full:
            return "full"
        if best:
            return best
        return "thumbnail" if any(link.thumbnail for link in self.start.view.links) else ""

    def _scripted(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for visit in self.visits:
            for key, urls in visit.view.scripted.items():
                found.setdefault(key, set()).update(urls)
        return found

    def main_shown(self, visit: Visit) -> list[ImageUnit]:
        """Return the main images of a page among those without a link to an image: all groups of
        several images, or else the largest image."""
        previews = self._previews()
        often = self._on_many_pages()
        units = [
            unit
            for unit in self._shown_units(visit)
            if unit.url not in previews and unit.url not in often
        ]
        groups: dict[str, list[ImageUnit]] = {}
        for unit in units:
            groups.setdefault(unit.key, []).append(unit)
        several = [key for key in groups if len({unit.url for unit in groups[key]}) > 1]
        if several:
            return [unit for key in several for unit in groups[key]]
        stems = {image_stem(link.thumbnail) for link in self._links_to(visit) if link.thumbnail}
        named = [unit for unit in units if image_stem(unit.url) in stems]
        if not units or (not named and listing_keys(visit.view) and visit.children):
            return []
        return [max(named or units, key=lambda unit: unit.width)]

    def _shown_units(self, visit: Visit) -> list[ImageUnit]:
        """Return the images of a page that are not in a list of thumbnails, including those in a
        link to a page."""
        lists = listing_keys(visit.view) | self._all_listing_keys()
        inside: dict[int, LinkUnit] = {
            id(one): link for link in visit.view.links for one in link.element.find_all(True)
        }
        found = []
        for unit in visit.view.shown:
            link = inside.get(id(unit.element))
            if link is None or (link.key not in lists and not self._is_preview(visit, link)):
                found.append(unit)
        return found

    def _is_preview(self, visit: Visit, link: LinkUnit) -> bool:
        """Return True if a deeper page behind a thumbnail has the same image or thumbnail."""
        stem = image_stem(link.thumbnail)
        for other in self.visits:
            view = other.view
            if other.depth > visit.depth and link.url in (view.url, view.page.request.url):
                urls = {unit.url for unit in (*view.full, *view.shown)}
                urls |= {one.thumbnail for one in view.links}
                urls.update(*view.scripted.values())
                return any(image_stem(url) == stem for url in urls)
        return False

    def _all_listing_keys(self) -> set[str]:
        return {key for visit in self.visits for key in listing_keys(visit.view)}

    def _previews(self) -> set[str]:
        """Return the URLs of thumbnails in lists of links to pages."""
        keys = self._all_listing_keys()
        return {
            link.thumbnail for visit in self.visits for link in visit.view.links if link.key in keys
        }

    def _on_many_pages(self) -> set[str]:
        """Return images that occur on several pages of one group, which are decoration."""
        counts = Counter(
            (visit.through, url)
            for visit in self.visits
            for url in {unit.url for unit in visit.view.shown}
        )
        return {url for (_, url), count in counts.items() if count > 1}

    def _links_to(self, visit: Visit) -> list[LinkUnit]:
        parent = visit.parent
        if parent is None:
            return []
        return [link for link in parent.view.links if link.url == visit.view.page.request.url]

    def _choose_images(self, visit: Visit) -> None:
        if self.kind == "full":
            visit.units = without_renditions(visit.view.full)
        elif self.kind == "shown":
            visit.units = self.main_shown(visit)
        elif self.kind == "thumbnail":
            visit.units = [
                ImageUnit(link.element, link.thumbnail, link.key)
                for link in visit.view.links
                if link.thumbnail
            ]
        else:
            visit.wanted = set(visit.view.scripted.get(self.kind, ()))
            return
        visit.wanted = {unit.url for unit in visit.units}

    def _choose_follow(self) -> list[str]:
        """Return the groups of links that lead to further images of the gallery. Links out of the
        folder of the start page count only if they are thumbnails and it has at most one image."""
        if self.kind == "thumbnail":
            return []
        found: dict[str, None] = {}
        known = {key for visit in self.visits for key in [visit.through] if key}
        for visit in self.visits:
            for child in visit.children:
                if not child.productive or child.through not in known:
                    continue
                is_text = not any(link.thumbnail for link in self._links_to(child))
                elsewhere = not child.view.url.startswith(folder_of(self.start.view.url))
                if elsewhere and (is_text or len(self.start.wanted) > 1):
                    continue
                if is_text and not child.images_below() - self._images_through_thumbnails():
                    continue
                found[child.through] = None
        return list(found)

    def _images_through_thumbnails(self) -> set[str]:
        found = set(self.start.wanted)
        stack = [self.start]
        while stack:
            visit = stack.pop()
            for child in visit.children:
                if any(link.thumbnail for link in self._links_to(child)):
                    found |= child.wanted
                    stack.append(child)
        return found

    def _find_larger_versions(self) -> list[str]:
        """Follow links from pages with one image to a larger version of it. Return patterns that
        exclude the smaller versions."""
        slides = [visit for visit in self.visits if len(visit.units) == 1]
        for visit in slides[1:3]:
            here = visit.view.url.rpartition(".")[0] or visit.view.url
            for link in visit.view.links:
                if (
                    not link.thumbnail
                    and link.url.startswith(here)
                    and link.url not in self._site.seen
                ):
                    larger = self._site.visit(visit, link)
                    pattern = _smaller_pattern(visit, larger, self) if larger else ""
                    if larger and pattern:
                        self.visits.append(larger)
                        self.follow.append(link.key)
                        return [pattern]
        return []

    def _drop_other_pages(self) -> None:
        """Move the pages that no followed group leads to from `visits` to `others`."""
        kept = [self.start]
        for visit in self.visits[1:]:
            if visit.through in self.follow and visit.parent in kept and visit.productive:
                kept.append(visit)
        self.others = [visit for visit in self.visits if visit not in kept]
        self.visits = kept


def survey_site(start: Page, get: GetPage) -> SiteSurvey:
    """Survey a site. If no image is found, survey it again without recognising frames by name."""
    pages: dict[str, Page | None] = {}

    def get_once(url: str) -> Page | None:
        if url not in pages:
            pages[url] = get(url)
        return pages[url]

    survey = SiteSurvey(start, get_once)
    if any(visit.wanted for visit in survey.visits):
        return survey
    again = SiteSurvey(start, get_once, by_name=False)
    return again if any(visit.wanted for visit in again.visits) else survey


def _smaller_pattern(small: Visit, large: Visit, survey: SiteSurvey) -> str:
    """Return a pattern of the names of smaller versions; empty if `large` does not have a larger
    version of the same image."""
    units = survey.main_shown(large)
    (unit,) = small.units
    if len(units) != 1 or units[0].width <= unit.width:
        return ""
    name, extension = url_path(unit.url).rpartition("/")[2].rsplit(".", 1)
    suffix = SIZE_SUFFIX.search(name.lower())
    if suffix is None or image_stem(units[0].url) != image_stem(unit.url):
        return ""
    large.units, large.wanted = units, {units[0].url}
    pattern = rf"{re.escape(name[suffix.start() :])}\.{extension}$"
    return "" if re.search(pattern, units[0].url) else pattern

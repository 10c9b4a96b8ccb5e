"""Estimates the size of a site from a few pages."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.crawl.check_recipe import STAGE, PageCheck, check_page
from pipeline.credentials import split_user
from pipeline.errors import Failure
from pipeline.fetcher import Fetcher
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.recipe import load_recipe
from pipeline.web.urls import canonical_url

_LEVELS = 4
_PAGES_PER_LEVEL = 3
_IMAGES = 3
_LIMITS = ImageLimits(100_000_000)


@dataclass(frozen=True)
class SiteEstimate:
    """The expected number of `pages` and `images`, at least these if not `is_complete`; the
    licences of the images on the pages that were visited; the median short side in pixels and the
    mean size in bytes of a few images, 0 if unknown; and why the first page cannot be used, or an
    empty text."""

    pages: int
    images: int
    is_complete: bool
    licenses: Counter[str]
    visited: int
    side: int = 0
    image_bytes: int = 0
    error: str = ""


def estimate_site(path: Path | str, url: str) -> SiteEstimate:
    """Apply a recipe to the page at `url` and up to three pages on each of three levels behind it,
    and measure three images.

    The numbers of images and of links to new pages of a level are assumed to be those of the pages
    that were visited.

    Raises:
        UserError: the recipe has an error.
    """
    recipe = load_recipe(path)
    address = split_user(url)[0]  # the recipe has the user and password
    first = canonical_url(address) or address
    level, known, found = [first], {first}, dict[str, str]()
    expected, pages, images, visited = 1.0, 0.0, 0.0, 0
    with Fetcher(recipe.politeness) as fetcher:
        for _ in range(_LEVELS):
            checks = [check_page(recipe, one, fetcher) for one in _some(level)]
            if not visited and checks[0].error:
                return SiteEstimate(0, 0, True, Counter(), 1, error=checks[0].error)
            visited += len(checks)
            fresh = _new_images(checks, found)
            links = dict.fromkeys(one for check in checks for one in check.follow)
            level = [one for one in links if one not in known]
            known.update(level)
            pages, images = pages + expected, images + expected * fresh / len(checks)
            expected *= len(level) / len(checks)
            if not level:
                break
        sizes = [size for one in _some(list(found)) if (size := _measure(one, fetcher))]
    return SiteEstimate(
        round(pages), round(images), not level, Counter(found.values()), visited,
        round(statistics.median(side for side, _ in sizes)) if sizes else 0,
        round(statistics.fmean(size for _, size in sizes)) if sizes else 0,
    )  # fmt: skip


def _some(urls: Sequence[str]) -> list[str]:
    """Return up to three evenly spaced URLs."""
    every = max(1, -(-len(urls) // _PAGES_PER_LEVEL))
    return list(urls[::every])


def _new_images(checks: Sequence[PageCheck], found: dict[str, str]) -> int:
    """Add the licences of images by URL; return how many are new."""
    before = len(found)
    for check in checks:
        found.update((one.url, one.license) for one in check.images if one.url not in found)
    return len(found) - before


def _measure(url: str, fetcher: Fetcher) -> tuple[int, int] | None:
    """Return the short side in pixels and the size in bytes of an image."""
    response = fetcher.get(url, stage=STAGE)
    if isinstance(response, Failure):
        return None
    try:
        with decoded(response.body, _LIMITS) as image:
            return min(image.image.size), len(response.body)
    except ImageError:
        return None

"""The options of an html source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.sources.candidates import FULL_SIZE_ATTRIBUTES
from pipeline.sources.interface import CrawlLimits
from pipeline.sources.text_selectors import (
    Css,
    ImageSelector,
    ImageSelectorOptions,
    Pattern,
    TextSelector,
)
from pipeline.sources.url_rules import check_start


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Follow:
    """Links to follow, and texts near them that are passed on to the images behind them.

    `select` is the CSS selector of the links. The text selectors `title` and `labels` are evaluated
    in the closest element around the link that matches `item`; without
    `item`, in the link itself.
    """

    select: Css
    item: Css | None = None
    title: TextSelector | None = None
    labels: tuple[TextSelector, ...] = ()


@dataclass(frozen=True, config=STRICT, kw_only=True)
class HtmlSource(CrawlLimits):
    """A gallery of HTML pages.

    All pages are treated in the same way. `follow` and `next` select links to further pages (`next`
    selects the next page of the same list, at the same depth). `image` selects one element per
    image, inside each `item` if that is set, otherwise in the whole page: an img, picture, a, meta
    or script (JSON-LD, or data in JavaScript), or any element around one. The largest candidate of
    the element is used; a link to an image is not followed. As a table with `select` and
    `attribute`, `image` reads that attribute. With `one_per_page`, only the largest image of the
    page is used. `full_size` are attributes that may hold the URL of a larger image.

    The crawl begins at the URLs of `start`. `title`, `labels`, `license` and `attribution` are read
    in the item (the image's element without `item`) or in the page. Patterns are applied to
    canonical URLs: `include` and `exclude` to those of images, `follow_include` and
    `follow_exclude` to those of pages. Pages on other hosts than those of `start` (with or without
    `www.`) are followed only with `offsite`.
    """

    kind: Literal["html"] = "html"
    start: tuple[str, ...] = Field(min_length=1)
    follow: tuple[Css | Follow, ...] = ()
    next: Css | None = None
    item: Css | None = None
    image: ImageSelector = ImageSelectorOptions()
    one_per_page: bool = False
    full_size: tuple[str, ...] = FULL_SIZE_ATTRIBUTES
    title: TextSelector | None = None
    labels: tuple[TextSelector, ...] = ()
    license: TextSelector | None = None
    attribution: TextSelector | None = None
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()
    follow_include: tuple[Pattern, ...] = ()
    follow_exclude: tuple[Pattern, ...] = ()
    offsite: bool = False

    def __post_init__(self) -> None:
        check_start(self.start)

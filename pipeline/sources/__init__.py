"""Sources: one adapter per kind. `SOURCES` is the registry, `Source` the union of their options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.sources.feed import FEED, FeedSource
from pipeline.sources.folder import FOLDER, FolderSource
from pipeline.sources.html import HTML
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.iiif import IIIF, IiifSource
from pipeline.sources.interface import (
    Adapter,
    CorruptFile,
    CrawlLimits,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.json_api import JSON
from pipeline.sources.json_options import JsonSource
from pipeline.sources.list_options import ListSource
from pipeline.sources.sitemap import SITEMAP, SitemapSource
from pipeline.sources.url_list import LIST

__all__ = [
    "SOURCES",
    "Adapter",
    "CorruptFile",
    "CrawlLimits",
    "FoundImage",
    "Notes",
    "Page",
    "PageRequest",
    "PageResult",
    "Source",
]  # fmt: skip

Source = Annotated[
    HtmlSource | JsonSource | IiifSource | SitemapSource | FeedSource | ListSource | FolderSource,
    Field(discriminator="kind"),
]
"""The options of `[source]` in a recipe; `kind` selects the adapter."""

SOURCES: dict[str, Adapter[Any]] = {
    "html": HTML,
    "json": JSON,
    "iiif": IIIF,
    "sitemap": SITEMAP,
    "feed": FEED,
    "list": LIST,
    "folder": FOLDER,
}

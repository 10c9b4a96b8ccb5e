"""One adapter a kind of source; `SOURCES` is the registry, `Source` the union of their settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.sources.html import HTML, HtmlSource
from pipeline.sources.interface import Adapter, Found, Limits, Page, PageRequest, PageResult

__all__ = ["SOURCES", "Adapter", "Found", "Limits", "Page", "PageRequest", "PageResult", "Source"]

Source = Annotated[HtmlSource, Field(discriminator="kind")]
"""The `[source]` table of a recipe; its `kind` says which adapter it is for."""

SOURCES: dict[str, Adapter[Any]] = {
    "html": HTML,
}

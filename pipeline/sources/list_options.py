"""The options of a list source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.sources.interface import (
    CrawlLimits,
)
from pipeline.sources.text_selectors import Pattern


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ListSource(CrawlLimits):
    """Lists of image URLs: local files, folders of them, or http(s) URLs.

    `start` are the lists. The columns are those of the image's `url`, `title`, `labels`,
    `license_column` and `attribution_column`. Patterns are applied to image URLs: one of `include`
    and none of `exclude` must match. By default, `format` is determined by the extension (before
    `.gz`) and columns by their usual names, in upper or lower case. Text may be gzipped, or be
    UTF-16 or Latin-1. A list of more than `max_gb` GB is not downloaded or unpacked. Several
    `labels` columns, or a list in one column, yield several labels. `boxes` is a column of objects
    (lists of left, top, right, bottom in pixels; JSON in a text file), which `shards.crop = "box"`
    crops to. `license` and `attribution` are used for images without their own. Paths are relative
    to the current folder.
    """

    kind: Literal["list"] = "list"
    start: tuple[str, ...] = Field(min_length=1)
    format: Literal["txt", "csv", "tsv", "jsonl", "json", "parquet"] | None = None
    max_gb: float = Field(default=64.0, gt=0)
    url: str | None = None
    title: str | None = None
    labels: tuple[str, ...] | None = None
    license_column: str | None = None
    attribution_column: str | None = None
    boxes: str | None = None
    license: str = ""
    attribution: str = ""
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

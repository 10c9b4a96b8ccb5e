"""The options of a json source."""

from __future__ import annotations

from typing import Annotated, Literal

import jmespath
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.sources.interface import CrawlLimits
from pipeline.sources.text_selectors import Pattern
from pipeline.sources.url_rules import Rewrite, check_start


def _check_path(expression: str) -> str:
    try:
        jmespath.compile(expression)
    except (jmespath.exceptions.JMESPathError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"not a JMESPath expression: {reason}") from None
    return expression


Expression = Annotated[str, AfterValidator(_check_path)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Paging:
    """How to request the next page.

    `by` is one of
    - `link`: follow the response's Link header (rel=next).
    - `url`: `value` is the URL of the next page.
    - `cursor`: `value` becomes the query parameter `parameter`.
    - `parameters`: `value` is an object of query parameters.
    - `page`: `parameter` grows by 1 from `first`.
    - `offset`: `parameter` grows by `step` from `first`.

    Paging ends if `value` is missing. With `page` and `offset`, it ends if a page is empty or has
    the same items as the previous page, if `last` is true, after `total` items (`step` per page),
    or before the parameter exceeds `until`.
    """

    by: Literal["link", "url", "cursor", "parameters", "page", "offset"]
    value: Expression | None = None
    parameter: str = ""
    first: int = 0
    step: int | None = Field(default=None, ge=1)
    last: Expression | None = None
    total: Expression | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        needs = {
            "url": ("value",), "cursor": ("value", "parameter"), "parameters": ("value",),
            "page": ("parameter",), "offset": ("parameter", "step"),
        }.get(self.by, ())  # fmt: skip
        for name in needs:
            if not getattr(self, name):
                raise ValueError(f"by = {self.by!r} needs {name}")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class JsonFollow:
    """Further pages: for each of `values`, `url` with {} replaced by the (escaped) value, or the
    value itself without `url`. The first group (or the whole match) of the pattern `label` in the
    value becomes a label of the images on these pages."""

    values: Expression
    url: str = ""
    label: Pattern | None = None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class JsonSource(CrawlLimits):
    """A JSON API.

    `items` selects the records of a page, `media` the images of a record (by default the record
    itself). `image`, `title`, `labels`, `license` and `attribution` are expressions on an object
    with three members: `page` (the whole response), `item` and `media`. If the value is a list, all
    images or labels in it are used, but only the first text. The crawl begins at the URLs of
    `start`. `next` states how to request the next page, and `follow` which further pages to visit.
    Patterns are applied to image URLs: one of `include` and none of `exclude` must match. `rewrite`
    changes image URLs, for example a thumbnail's into the original's. HTML tags in texts are
    removed.
    """

    kind: Literal["json"] = "json"
    start: tuple[str, ...] = Field(min_length=1)
    items: Expression = "@"
    media: Expression | None = None
    image: Expression = "media"
    title: Expression | None = None
    labels: tuple[Expression, ...] = ()
    license: Expression | None = None
    attribution: Expression | None = None
    next: Paging | None = None
    follow: tuple[JsonFollow, ...] = ()
    rewrite: tuple[Rewrite, ...] = ()
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        check_start(self.start)

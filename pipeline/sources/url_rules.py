"""URL helpers of several adapters: include and exclude patterns, rewriting, query parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.outside_text import safe_text
from pipeline.sources.text_selectors import Pattern
from pipeline.web.urls import canonical_url


def check_start(urls: Sequence[str]) -> None:
    """Check that all start URLs are http(s) URLs.

    Raises:
        ValueError: one of `urls` is not; the message names it.
    """
    for url in urls:
        if canonical_url(url) is None:
            raise ValueError(f"start: {url!r} is not an http(s) URL")


@dataclass(frozen=True, config=STRICT)
class Rewrite:
    """Replaces matches of `match` in a URL by `by`; in it \\1 … stand for groups."""

    match: Pattern
    by: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.match).sub(self.by, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"by: {error}") from None


def is_allowed(url: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Return True if one of `include` matches `url` (or `include` is empty), and none of `exclude`
    does."""
    if any(re.search(one, url) for one in exclude):
        return False
    return not include or any(re.search(one, url) for one in include)


def rewrite_url(url: str, rules: Sequence[Rewrite]) -> str:
    """Apply all rules to `url`, in order."""
    for rule in rules:
        url = re.sub(rule.match, rule.by, url)
    return url


def query_value(url: str, name: str) -> str | None:
    """Return the value of a query parameter, or None."""
    for part in urlsplit(url).query.split("&"):
        key, _, value = part.partition("=")
        if unquote_plus(key) == name:
            return unquote_plus(value)
    return None


def with_query(url: str, values: Mapping[str, object]) -> str:
    """Return the canonical `url` with query parameters set; values that are None are ignored."""
    texts = {
        safe_text(name): safe_text(str(value))
        for name, value in values.items()
        if value is not None
    }
    parts = urlsplit(url)
    kept = [
        part
        for part in parts.query.split("&")
        if part and unquote_plus(part.partition("=")[0]) not in texts
    ]
    kept += [f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in texts.items()]
    whole = urlunsplit(parts._replace(query="&".join(kept)))
    return canonical_url(whole) or whole

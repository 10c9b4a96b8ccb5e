"""Rules on URLs shared by several adapters: allow by pattern, rewrite by pattern, query parts."""

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
    """Raise unless all start addresses are http(s) URLs.

    Raises:
        ValueError: one of `urls` is not; names it.
    """
    for url in urls:
        if canonical_url(url) is None:
            raise ValueError(f"start: {url!r} is not an http(s) URL")


@dataclass(frozen=True, config=STRICT)
class Rewrite:
    """Replace the match of `match` in a URL by `by`, in which \\1 … are the groups of the match."""

    match: Pattern
    by: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.match).sub(self.by, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"by: {error}") from None


def is_allowed(url: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Return True if one of `include` matches `url`, or there are none, and none of `exclude`
    matches."""
    if any(re.search(one, url) for one in exclude):
        return False
    return not include or any(re.search(one, url) for one in include)


def rewrite_url(url: str, rules: Sequence[Rewrite]) -> str:
    """Return `url` after all rules, applied in order."""
    for rule in rules:
        url = re.sub(rule.match, rule.by, url)
    return url


def query_value(url: str, name: str) -> str | None:
    """Return the value of a query parameter; None if it does not exist."""
    for part in urlsplit(url).query.split("&"):
        key, _, value = part.partition("=")
        if unquote_plus(key) == name:
            return unquote_plus(value)
    return None


def with_query(url: str, values: Mapping[str, object]) -> str:
    """Return the canonical `url` with the given query parameters set. A parameter with the value
    None is removed."""
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

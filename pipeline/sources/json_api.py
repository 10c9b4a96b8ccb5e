"""Paged JSON APIs: images and further pages selected by JMESPath expressions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import jmespath

from pipeline.outside_text import parse_json, plain_value, safe_text
from pipeline.sources.interface import (
    LARGE_PAGE,
    Adapter,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
    notes_on_text,
)
from pipeline.sources.json_options import JsonSource, Paging
from pipeline.sources.text_selectors import MAX_LABELS, clean_html
from pipeline.sources.url_rules import is_allowed, query_value, rewrite_url, with_query
from pipeline.web.urls import canonical_url

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:"[^"]*"|[^",;\s]*))?)*)')
_MAX_HEADER = 8192
_MAX_NEXT = 200


def start(config: JsonSource) -> list[PageRequest]:
    """Return the requests for the first pages."""
    return [PageRequest(url) for url in map(canonical_url, config.start) if url]


def parse(config: JsonSource, page: Page) -> PageResult:
    """Extract the images, the next page and further pages from a response."""
    try:
        data = parse_json(page.body)
    except ValueError as error:
        return PageResult(error=f"not JSON ({error})")
    try:
        return _parse(config, page, data)
    except _BAD_DATA as error:
        return PageResult(error=_mismatch(error))


_BAD_DATA = (jmespath.exceptions.JMESPathError, ValueError, RecursionError)
"""Exceptions that an expression raises for unexpected values."""


def _mismatch(reason: object) -> str:
    return f"the recipe's expressions do not match the response: {reason}"


def _parse(config: JsonSource, page: Page, data: Any) -> PageResult:
    records = _records(config, data)
    if isinstance(data, dict) and data.get("error") and not records:
        return PageResult(error=f"the API says: {json.dumps(data['error'])[:200]}")
    if records is None:
        return PageResult(error=f"items: {config.items} is not a list")
    notes = notes_on_text(page.body)
    found: dict[str, FoundImage] = {}
    for one in notes.each(records, partial(_images, config, page, data, notes), _BAD_DATA):
        found.setdefault(one.url, one)
    if not found and notes.get("bad_entry") == len(records):
        return PageResult(error=_mismatch(notes.examples["bad_entry"]))
    following = [*_following(config, page, data), *_next(config, page, data, records, notes)]
    return PageResult(list(found.values()), following, notes)


def _records(config: JsonSource, data: Any) -> list[Any] | None:
    records = jmespath.search(config.items, data)
    if isinstance(records, dict):
        return [records]
    if records is None:
        return []
    return records if isinstance(records, list) else None


def _images(
    config: JsonSource, page: Page, data: Any, notes: Notes, item: Any
) -> Iterator[FoundImage]:
    """Yield the images of one record."""
    media = item if config.media is None else jmespath.search(config.media, item)
    for one in media if isinstance(media, list) and config.media is not None else [media]:
        if one is None and config.media is not None:
            continue
        scope = {"page": data, "item": item, "media": one}
        urls = [text for text in _values(config.image, scope) if text]
        if not urls:
            notes.add("no_image", _brief(one))
        for text in urls:
            url = canonical_url(rewrite_url(text, config.rewrite), page.url)
            if url is None:
                notes.add("bad_url", text)
            elif not is_allowed(url, config.include, config.exclude):
                notes.add("excluded", url)
            else:
                yield _describe(config, page, scope, url)


def _brief(value: Any) -> str:
    return json.dumps(value)[:_MAX_NEXT]


def _describe(config: JsonSource, page: Page, scope: dict[str, Any], url: str) -> FoundImage:
    labels = list(page.request.context.get("labels", ()))
    for expression in config.labels:
        labels += _texts(expression, scope) or [""]
    while labels and not labels[-1]:
        labels.pop()
    title, license, attribution = (
        next(iter(_texts(one, scope)), "") if one else ""
        for one in (config.title, config.license, config.attribution)
    )
    return FoundImage(url, title, tuple(labels[:MAX_LABELS]), license, attribution)


def _texts(expression: str, scope: Any) -> list[str]:
    """Return the values of an expression without HTML tags, cleaned."""
    return [clean_html(one) for one in _values(expression, scope)]


def _values(expression: str, scope: Any) -> list[str]:
    """Return the value of an expression, or its items, as written: URLs and their parts. Null,
    booleans and objects are skipped."""
    value = jmespath.search(expression, scope)
    values = value if isinstance(value, list) else [value]
    return [
        safe_text(str(one)).strip()
        for one in values
        if isinstance(one, str | int | float) and not isinstance(one, bool)
    ]


def _following(config: JsonSource, page: Page, data: Any) -> Iterator[PageRequest]:
    context = page.request.context
    for rule in config.follow:
        for value in _values(rule.values, data):
            text = rule.url.replace("{}", quote(value, safe="")) if rule.url else value
            url = canonical_url(text, page.url)
            if url is None:
                continue
            labels = list(context.get("labels", ()))
            match = re.search(rule.label, value) if rule.label else None
            if match:
                labels.append(clean_html((match[1] if match.re.groups else match[0]) or ""))
            yield PageRequest(url, page.request.depth + 1, {"labels": labels} if labels else {})


def _next(
    config: JsonSource, page: Page, data: Any, records: list[Any], notes: Notes
) -> Iterator[PageRequest]:
    paging = config.next
    if paging is None:
        return
    if paging.by in ("page", "offset"):
        yield from _next_by_number(paging, page, data, records)
        return
    url: str | None = None
    if paging.by == "link":
        url = next_link(page.headers.get("link", ""))
        value: Any = url
    else:
        value = jmespath.search(paging.value, data)
        text = plain_value(value)
        if paging.by == "url" and text:
            url = text
        elif paging.by == "cursor" and text:
            url = with_query(page.request.url, {paging.parameter: text})
        elif paging.by == "parameters" and isinstance(value, dict) and value:
            url = with_query(page.request.url, value)
    url = canonical_url(url, page.url) if url else None
    if url is None and value not in (None, "", False, {}, []):
        notes.add("bad_next", _brief(value))
    if url and url != page.request.url:
        yield PageRequest(url, page.request.depth, dict(page.request.context))


_NUMBER = re.compile(r"-?[0-9]{1,18}")


def _next_by_number(
    paging: Paging, page: Page, data: Any, records: list[Any]
) -> Iterator[PageRequest]:
    step = 1 if paging.by == "page" else (paging.step or 1)
    text = query_value(page.request.url, paging.parameter) or ""
    number = int(text) if _NUMBER.fullmatch(text) else paging.first
    digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
    if not records or digest == page.request.context.get("same"):
        return
    if paging.last and jmespath.search(paging.last, data) is True:
        return
    if paging.total and paging.step:
        total = jmespath.search(paging.total, data)
        pages = (number - paging.first) // step + 1
        if isinstance(total, int | float) and pages * paging.step >= total:
            return
    if paging.until is not None and number + step > paging.until:
        return
    url = with_query(page.request.url, {paging.parameter: number + step})
    yield PageRequest(url, page.request.depth, {**page.request.context, "same": digest})


def next_link(header: str) -> str | None:
    """Return the URL of rel=next in a Link header (RFC 8288), or None."""
    for match in _LINK.finditer(header[:_MAX_HEADER]):
        relation = re.search(r';\s*rel\s*=\s*(?:"([^"]*)"|([^",;\s]*))', match[2], re.IGNORECASE)
        if relation and "next" in (relation[1] or relation[2] or "").lower().split():
            return match[1]
    return None


JSON = Adapter(JsonSource, start, parse, page_bytes=lambda _: LARGE_PAGE)

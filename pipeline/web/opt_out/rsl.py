"""RSL 1.0, Really Simple Licensing (2025-12-10): whether a licence prohibits training.

A licence counts if it prohibits `ai-train` for a URL: by `<prohibits type="usage">` in any
`<content>` that covers the URL, or because every licence of the most specific such `<content>`
lists permitted uses and none of them covers training.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from pipeline.web.opt_out.robots_lines import matches, normalize, target_path
from pipeline.web.opt_out.signals import Signal
from pipeline.web.opt_out.xml import local_name, parse_xml

MAX_BYTES = 1 << 20
MEDIA_TYPE = "application/rsl+xml"
MAX_CONTENTS = 10_000

_TRAINING = frozenset(("all", "ai-all", "ai-train", "train-ai", "train-genai"))
"""The uses that include training a GAN; the last two are from drafts and still in use."""

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_PARAMETER = re.compile(r';\s*([a-z*]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


@dataclass(frozen=True)
class _License:
    permits: frozenset[str] | None
    prohibits: frozenset[str]


@dataclass(frozen=True)
class _Content:
    """`host` is the host of an absolute pattern, or empty for the site itself."""

    host: str
    pattern: str
    licenses: tuple[_License, ...]


@dataclass(frozen=True)
class RslDocument:
    """The terms of one RSL file."""

    contents: tuple[_Content, ...] = ()

    def prohibits_training(self, url: str) -> bool:
        host, target = urlsplit(url).netloc.lower(), target_path(url)
        covering = [one for one in self.contents
                    if one.host in ("", host) and matches(one.pattern, target)]  # fmt: skip
        if any(one.prohibits & _TRAINING for content in covering for one in content.licenses):
            return True
        longest = max((len(content.pattern) for content in covering), default=0)
        terms = [one.permits for content in covering for one in content.licenses
                 if len(content.pattern) == longest]  # fmt: skip
        return bool(terms) and all(uses is not None and not uses & _TRAINING for uses in terms)

    def signals(self, url: str, license: str) -> list[Signal]:
        """Return the signal for `url`, if any; `license` is where the terms were read."""
        return [Signal("rsl", "licence", license)] if self.prohibits_training(url) else []


def read_rsl(body: bytes) -> RslDocument | None:
    """Return the terms in an RSL file, or None if it is invalid."""
    root = parse_xml(body)
    if root is None or local_name(root) != "rsl":
        return None
    contents = (_content(one) for one in root.iter() if local_name(one) == "content")
    found = itertools.islice(contents, MAX_CONTENTS)
    return RslDocument(tuple(one for one in found if one is not None))


def _content(element: Any) -> _Content | None:
    url = (element.get("url") or "/").strip()
    host = ""
    if "://" in url.partition("?")[0]:
        host, slash, path = url.partition("://")[2].partition("/")
        host, url = host.lower(), slash + path
    pattern = normalize(url if url.startswith(("/", "*")) else f"/{url}")
    licenses = tuple(_license(one) for one in element if local_name(one) == "license")
    return _Content(host, pattern, licenses) if licenses else None


def _license(element: Any) -> _License:
    permits = [_uses(one) for one in element if local_name(one) == "permits" and _is_usage(one)]
    prohibits = [_uses(one) for one in element if local_name(one) == "prohibits" and _is_usage(one)]
    return _License(
        frozenset[str]().union(*permits) if permits else None, frozenset[str]().union(*prohibits)
    )


def _is_usage(element: Any) -> bool:
    return (element.get("type") or "usage").strip().lower() == "usage"


def _uses(element: Any) -> frozenset[str]:
    return frozenset(re.split(r"[\s,]+", "".join(element.itertext()).lower())) - {""}


def header_licenses(headers: Mapping[str, str], url: str) -> list[str]:
    """Return the RSL licences in the Link header of a response, as absolute URLs."""
    return list(_absolute(url, _header_links(headers.get("link", "")[:8192])))


def page_licenses(links: Iterable[tuple[str, str, str]], url: str) -> list[str]:
    """Return the RSL licences among the links of a page (rel, type, href), as absolute URLs."""
    return list(_absolute(url, (href for rel, kind, href in links if _is_rsl(rel, kind))))


def _header_links(value: str) -> Iterator[str]:
    for target, rest in _LINK.findall(value):
        named = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        if _is_rsl(named.get("rel", ""), named.get("type", "")):
            yield target


def _is_rsl(rel: str, kind: str) -> bool:
    media_type = kind.partition(";")[0].strip().lower()
    return "license" in rel.lower().split() and media_type == MEDIA_TYPE


def _absolute(base: str, targets: Iterable[str]) -> Iterator[str]:
    for target in targets:
        try:
            yield urljoin(base, target.strip())
        except ValueError:
            continue

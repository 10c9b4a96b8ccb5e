"""Parses untrusted XML: no network, no entities, limited decompressed size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

from lxml import etree

from pipeline.outside_text import decode_text
from pipeline.sources.interface import Notes
from pipeline.web.responses import CodingError, Decoder
from pipeline.web.urls import canonical_url

MAX_UNPACKED = 64 << 20
"""Maximum decompressed size in bytes; the sitemap protocol allows 50 MB."""

MAX_ENTRIES = 100_000
"""Maximum number of entries per document; the sitemap protocol allows 50,000."""

_SLICE = 1 << 16
_XML_BASE = "{http://www.w3.org/XML/1998/namespace}base"

Element = Any
"""An lxml element; lxml has no type annotations."""


def unpack(body: bytes) -> tuple[bytes, str]:
    """Decompress a gzipped document; others are returned unchanged. Return the content (empty or
    incomplete if the document is damaged), and an error message or empty."""
    if body[:2] != b"\x1f\x8b":
        return body, ""
    decoder, problem = Decoder("gzip", MAX_UNPACKED), ""
    pieces: list[bytes] = []
    try:
        starts = range(0, len(body), _SLICE)
        pieces.extend(decoder.feed(body[start : start + _SLICE]) for start in starts)
        pieces.append(decoder.finish())
    except CodingError as error:
        problem = "the gzip file ends early" if error.kind == "truncated" else "damaged gzip"
    if decoder.is_over:
        return b"", f"more than {MAX_UNPACKED >> 20} MiB when unpacked"
    return b"".join(pieces), problem


def starts_with(body: bytes, *texts: str) -> bool:
    """Return True if a document starts with one of the texts, after white space."""
    return decode_text(body.lstrip()[:200]).lstrip().startswith(texts)


def read_xml(body: bytes) -> tuple[Element | None, str]:
    """Return the root element of an XML document, gzipped or not, and an error message or empty.

    Of a damaged document, the part that could be parsed is returned; None if there is none.
    """
    body, problem = unpack(body)
    if problem and not body:
        return None, problem
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        root = etree.fromstring(body.lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        return None, f"not XML ({error})"
    if root is None:
        return None, problem or "not XML"
    errors = parser.error_log.filter_from_errors()
    return root, problem or (f"line {errors[0].line}: {errors[0].message}" if len(errors) else "")


def entries_of(elements: Iterable[Element], notes: Notes) -> list[Element]:
    """Return the first `MAX_ENTRIES` elements; `notes` counts the others."""
    iterator = iter(elements)
    first = list(islice(iterator, MAX_ENTRIES))
    more = sum(1 for _ in iterator)
    if more:
        notes.add("too_many_entries", f"more than {MAX_ENTRIES:,}", more)
    return first


_USUAL = {"media": "mrss", "image": "sitemap-image"}
"""Namespaces of common prefixes that documents use without declaring them."""


def name_of(element: Element) -> str:
    """Return the local name of an element, without its namespace; empty for comments."""
    return _name(element)[1]


def namespace_of(element: Element) -> str:
    """Return the namespace of an element."""
    return _name(element)[0]


def _name(element: Element) -> tuple[str, str]:
    if not isinstance(element.tag, str):
        return "", ""
    namespace, brace, name = element.tag.rpartition("}")
    prefix, colon, local = name.partition(":")
    if colon and not brace:
        return _USUAL.get(prefix, prefix), local
    return namespace.removeprefix("{"), name


def children(element: Element, name: str, namespace: str | None = None) -> Iterator[Element]:
    """Yield the children with a local name, whose namespace contains `namespace`."""
    for child in element:
        if name_of(child) == name and (namespace is None or namespace in namespace_of(child)):
            yield child


def text_of(element: Element, name: str, namespace: str | None = None) -> str:
    """Return the text of the first of these children; empty if there is none."""
    for child in children(element, name, namespace):
        return "".join(child.itertext("*")).strip()
    return ""


def markup_of(element: Element) -> str:
    """Return the content of an element as HTML: the elements in it (XHTML), without namespaces, and
    the text in it, which is HTML in most feeds."""
    text = "".join(element.itertext("*"))
    if next(element.iterchildren("*"), None) is None:
        return text
    copied = deepcopy(element)
    for one in copied.iter("*"):
        one.tag = name_of(one) or "div"
    markup = str(etree.tostring(copied, encoding="unicode", method="html", with_tail=False))
    return markup + text if "<" in text else markup


def base_of(element: Element, url: str) -> str:
    """Return the base of relative URLs in an element of the document at `url`: the `xml:base` of
    the element and those around it, or `url`."""
    for one in (*reversed(tuple(element.iterancestors())), element):
        base = one.get(_XML_BASE)
        url = (canonical_url(base, url) if base else None) or url
    return url

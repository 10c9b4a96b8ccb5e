"""XML from strangers: no network, no entities, no expansion, a bound on what is unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lxml import etree

from pipeline.sources.interface import Notes

MAX_UNPACKED = 64 << 20
"""Bytes; the sitemap protocol allows 50 MB."""

MAX_ENTRIES = 100_000
"""Entries that are read of one document; the sitemap protocol allows 50,000."""

Element = Any
"""An lxml element; lxml has no types."""


def read_xml(body: bytes) -> tuple[Element | None, str]:
    """The root element of an XML document, gzipped or not, and what is wrong with the document.

    A document that breaks off, or goes on as something else, gives what could be read of it.
    """
    said = ""
    if body[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(body, MAX_UNPACKED)
        except zlib.error as error:
            return None, f"broken gzip ({error})"
        if unpacker.unconsumed_tail:
            return None, f"more than {MAX_UNPACKED >> 20} MiB when unpacked"
        said = "" if unpacker.eof else "the gzip file breaks off"
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        root = etree.fromstring(body.lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        return None, f"not XML ({error})"
    if root is None:
        return None, said or "not XML"
    errors = parser.error_log.filter_from_errors()
    return root, said or (f"line {errors[0].line}: {errors[0].message}" if len(errors) else "")


def entries_of(elements: Iterable[Element], notes: Notes) -> list[Element]:
    """The first `MAX_ENTRIES` of some elements; how many there are more is counted."""
    iterator = iter(elements)
    taken = list(islice(iterator, MAX_ENTRIES))
    more = sum(1 for _ in iterator)
    if more:
        notes.add("too_many_entries", f"more than {MAX_ENTRIES:,}", more)
    return taken


_USUAL = {"media": "mrss", "image": "sitemap-image"}
"""What documents mean by prefixes that they do not declare."""


def name_of(element: Element) -> str:
    """The local name of an element, without its namespace; empty for comments."""
    return _name(element)[1]


def namespace_of(element: Element) -> str:
    """The namespace of an element."""
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
    """The children of that local name, and in a namespace that holds `namespace`."""
    for child in element:
        if name_of(child) == name and (namespace is None or namespace in namespace_of(child)):
            yield child


def text_of(element: Element, name: str, namespace: str | None = None) -> str:
    """The text of the first such child, empty where there is none."""
    for child in children(element, name, namespace):
        return "".join(child.itertext("*")).strip()
    return ""

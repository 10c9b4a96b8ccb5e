"""XML from strangers: no network, no entities, no expansion, a bound on what is unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from lxml import etree

MAX_UNPACKED = 64 << 20
"""Bytes; the sitemap protocol allows 50 MB."""

Element = Any
"""An lxml element; lxml has no types."""


def read_xml(body: bytes) -> tuple[Element | None, str]:
    """The root element of an XML document, gzipped or not, and else why there is none."""
    if body[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(body, MAX_UNPACKED)
        except zlib.error as error:
            return None, f"broken gzip ({error})"
        if unpacker.unconsumed_tail:
            return None, f"more than {MAX_UNPACKED >> 20} MiB when unpacked"
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        root = etree.fromstring(body.lstrip(), parser)
    except etree.XMLSyntaxError as error:
        return None, f"not XML ({error})"
    return root, "" if root is not None else "not XML"


def name_of(element: Element) -> str:
    """The local name of an element, without its namespace; empty for comments."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def namespace_of(element: Element) -> str:
    """The namespace of an element."""
    return (etree.QName(element).namespace or "") if isinstance(element.tag, str) else ""


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

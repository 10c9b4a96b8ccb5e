"""Parses untrusted XML and the meta elements of pages: no entities, no network, bounded size."""

from __future__ import annotations

from typing import Any

from lxml import etree

MAX_BYTES = 8 << 20

_DOCTYPE = tuple("<!DOCTYPE".encode(coding) for coding in ("ascii", "utf-16-le", "utf-16-be"))

_MAX_PAGE_BYTES = 1 << 20
_MAX_METAS = 500


def parse_xml(data: bytes, recover: bool = False) -> Any:
    """Return the root element (of lxml); None if `data` is not XML, is too large, or declares a
    document type (RSL and XMP do not need one, and it could define entities)."""
    if len(data) > MAX_BYTES or any(word in data for word in _DOCTYPE):
        return None
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False,
        remove_comments=True, remove_pis=True, recover=recover,
    )  # fmt: skip
    try:
        return etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError, MemoryError):
        return None


def local_name(element: Any) -> str:
    """Return the tag without its namespace, in lower case."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def read_metas(body: bytes) -> list[tuple[str, str]]:
    """Return the meta elements in the first part of an HTML page, as name (in lower case) and
    content."""
    parser = etree.HTMLParser(no_network=True, huge_tree=False, recover=True)
    try:
        root = etree.fromstring(body[:_MAX_PAGE_BYTES], parser)
    except (etree.XMLSyntaxError, ValueError):
        return []
    if root is None:
        return []
    found = root.iterfind(".//meta[@name][@content]")
    return [(one.get("name", "").strip().lower(), one.get("content", ""))
            for one, _ in zip(found, range(_MAX_METAS), strict=False)]  # fmt: skip

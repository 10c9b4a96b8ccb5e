"""Reads the meta elements of a page, which may lift a reservation of rights."""

from __future__ import annotations

from lxml import etree

MAX_BYTES = 1 << 20
_MAX_METAS = 500


def read_metas(body: bytes) -> list[tuple[str, str]]:
    """Return the meta elements in the first part of an HTML page, as name (in lower case) and
    content."""
    parser = etree.HTMLParser(no_network=True, huge_tree=False, recover=True)
    try:
        root = etree.fromstring(body[:MAX_BYTES], parser)
    except (etree.XMLSyntaxError, ValueError):
        return []
    if root is None:
        return []
    found = root.iterfind(".//meta[@name][@content]")
    return [(one.get("name", "").strip().lower(), one.get("content", ""))
            for one, _ in zip(found, range(_MAX_METAS), strict=False)]  # fmt: skip

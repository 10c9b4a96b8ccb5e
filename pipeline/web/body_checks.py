"""Checks whether a response body is an image, and recognizes what else it is."""

from __future__ import annotations

import html
import re

from pipeline.imaging.formats import image_format, other_format
from pipeline.web.responses import RawResponse, RequestFailure

_PAGES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "quota_page",
        re.compile(
            r"quota exceeded|download quota|too many users have (viewed|downloaded)"
            r"|generating too much traffic|bandwidth (limit|quota)|traffic limit"
            r"|(download|transfer) limit (has been |was )?(exceeded|reached)"
        ),
    ),
    (
        "virus_scan_page",
        re.compile(
            r"virus scan warning|(can.?.?t|cannot|could not|unable to) (be )?scan(ned)?"
            r" (this file )?for viruses|too large for google to scan"
        ),
    ),
    ("login_page", re.compile(r"<input[^>]+type=[\"']?password|<title>[^<]*\b(log|sign) ?in\b")),
)
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title|script|meta)", re.S)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg", re.S)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.S | re.I)
_SNIFF_BYTES = 1 << 16


def check_body(response: RawResponse) -> RequestFailure | None:
    """Return why a body is not a complete image, or None. Only its first and last bytes are read.

    The Content-Type is ignored: an image served as text/plain is an image, and a page served as
    image/jpeg is a page.
    """
    data = response.body
    if response.status == 304:
        return RequestFailure(
            "bad_status", "not modified, although the request was unconditional", 304
        )
    if not data.strip(b"\0 \r\n\t"):
        return RequestFailure("empty", f"{len(data)} bytes, all blank", response.status)
    name = image_format(data)
    if name is None:
        return RequestFailure(*_what_else(data, response.content_type), status=response.status)
    if "content-length" not in response.headers and _broken_off(data, name):
        return RequestFailure(
            "truncated", f"{len(data)} bytes without an end marker", response.status
        )
    return None


def _broken_off(data: bytes, name: str) -> bool:
    """Return True if the end marker of the format is missing. Extra bytes after it are allowed."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if name == "PNG":
        return b"IEND" not in data[-4096:]
    if name == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return name == "GIF" and b"\x3b" not in data[-64:]


def _what_else(data: bytes, content_type: str) -> tuple[str, str]:
    start = data[:_SNIFF_BYTES].lstrip(b"\xef\xbb\xbf")
    lower = start.lower()
    if _SVG.match(lower):
        return "wrong_type", "SVG"
    if _HTML.match(lower) or (content_type in ("text/html", "application/xhtml+xml")
                              and lower.lstrip()[:1] == b"<"):  # fmt: skip
        return _what_page(start.decode("utf-8", "replace"))
    name = other_format(data) or other_format(start)
    if name is not None:
        return "wrong_type", name
    if content_type and not content_type.startswith(("image/", "application/octet-stream")):
        return "wrong_type", content_type
    return "undecodable", f"begins with {start[:8]!r}"


def _what_page(text: str) -> tuple[str, str]:
    title = _TITLE.search(text)
    detail = " ".join(html.unescape(title[1]).split())[:120] if title else "a page"
    lower = text.lower()
    for kind, pattern in _PAGES:
        if pattern.search(lower):
            return kind, detail
    return "html_page", detail

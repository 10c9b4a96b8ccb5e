"""Redirects: where a response leads to, and when to stop following."""

from __future__ import annotations

from urllib.parse import urljoin

from pipeline.web.politeness import Politeness
from pipeline.web.responses import RawResponse, RequestFailure
from pipeline.web.urls import request_url

_MAX_LOCATION = 16_384
"""Length of the longest Location that is followed, in characters."""


def next_url(
    politeness: Politeness, visited: list[str], response: RawResponse
) -> str | RequestFailure:
    """Return the URL to request after a redirect, or the failure that ends the redirects.

    Args:
        visited: the URLs requested so far, oldest first.
    """
    target = redirect_target(response)
    if isinstance(target, RequestFailure):
        return target
    if target in visited or len(visited) > politeness.max_redirects:
        return RequestFailure("redirect_loop", f"{len(visited)} redirects, to {target}")
    return target


def redirect_target(response: RawResponse) -> str | RequestFailure:
    """Return the absolute URL that a redirect leads to, normalized for a request.

    A Location that is not valid UTF-8 is percent-encoded byte by byte, as browsers do.
    """
    location = response.headers.get("location", "").strip(" \t")
    if not location:
        return RequestFailure("bad_redirect", "no Location", response.status)
    if len(location) > _MAX_LOCATION:
        return RequestFailure(
            "bad_redirect", f"a Location of {len(location)} bytes", response.status
        )
    raw = location.encode("latin-1", "replace")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in raw)
    try:
        return request_url(urljoin(response.url, text))
    except ValueError as error:
        return RequestFailure("bad_redirect", str(error), response.status)

"""Parses the head of a response and checks headers in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_tz

from pipeline.web.politeness import MAX_DELAY

MAX_HEAD = 256 << 10
"""Maximum bytes of all headers of a response, including interim responses (1xx)."""

MAX_ERROR_BODY = 64 << 10
"""Maximum bytes to read of an error's body, so that its connection can be reused."""

MAX_INTERIM = 100
"""Maximum number of interim responses (1xx) before the final one."""

_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? +([0-9]{3})(?: .*)?", re.DOTALL)
_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_DIGITS = re.compile(r"[0-9]+")
_VALUE = re.compile("[\x20-\x7e\x80-\xff]+")
_LONGEST_VALUE = 4096
_ENDLESS = ("multipart/x-mixed-replace", "text/event-stream")


def parse_head(lines: Iterable[bytes]) -> tuple[int, dict[str, str]]:
    """Return the status and headers (names in lower case, values in Latin-1) of the final response.

    `lines` may contain interim responses (1xx) before it and trailers after it.

    Raises:
        ValueError: a status line is invalid.
    """
    status = 0
    headers: dict[str, str] = {}
    in_head = False
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        if not in_head:
            if status >= 200:
                break
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"status line {line[:60].decode('latin-1')!r}")
            status, headers, in_head = int(match[1]), {}, True
        elif not line:
            in_head = False
        else:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                name, value = name.strip(" \t").lower(), value.strip(" \t")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return status, headers


def refused_head(headers: Mapping[str, str], limit: int | None) -> tuple[str, str] | None:
    """Return the failure kind and detail of a body that is an endless stream or longer than `limit`
    bytes; None if the headers are fine."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in _ENDLESS:
        return "wrong_type", f"{media}: an endless stream"
    length = headers.get("content-length", "").strip()
    if limit is not None and _DIGITS.fullmatch(length):
        significant = length.lstrip("0")
        if len(significant) > len(str(limit)) or int(significant or "0") > limit:
            return "too_large", f"{significant[:20]} bytes announced, {limit} allowed"
    return None


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those of `headers` that can be sent unchanged: short, without control characters, and
    in Latin-1. A validator must reach its server byte for byte."""
    return {
        name: value
        for name, value in headers.items()
        if len(value) <= _LONGEST_VALUE and _VALUE.fullmatch(value) and value == value.strip(" ")
    }


def retry_after(value: str, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header, a number or an HTTP date (RFC 9110, 10.2.3), at
    most `MAX_DELAY`; None if it is missing or invalid."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(max(0.0, float(value)), MAX_DELAY)
    try:
        parsed = parsedate_tz(value[:100])
        if parsed is None:
            return None
        if parsed[0] > 9999:
            return MAX_DELAY
        date = datetime(*parsed[:6], tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds() - (parsed[9] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_DELAY)

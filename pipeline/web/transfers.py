"""What both transports check: heads of responses, headers, timeouts and minimum speed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_tz

from pipeline.web.politeness import MAX_DELAY, Politeness

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

_MANY_PIECES = 200_000
_TINY_PIECE = 32
TINY_PIECES = f"a body in pieces of less than {_TINY_PIECE} bytes"
"""The message for a transfer with `has_tiny_pieces`."""


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


class TransferTimeouts:
    """Checks the speed of a transfer that started at `now` (seconds of a monotonic clock).

    The timeouts apply to the whole request, not to a socket: a slow drip keeps a socket alive
    forever.
    """

    def __init__(self, politeness: Politeness, now: float) -> None:
        self._politeness = politeness
        self._start = now
        self._first: float | None = None
        self._window = now
        self._received = 0
        self._received_before = 0
        self._pieces = 0

    @property
    def has_started(self) -> bool:
        """Whether the headers of the response have arrived."""
        return self._first is not None

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start."""
        return now - self._start

    def received(self, nbytes: int, now: float) -> None:
        """Record that the headers (0) or `nbytes` of the body arrived."""
        if self._first is None:
            self._first = self._window = now
        self._received += nbytes
        self._pieces += 1

    @property
    def has_tiny_pieces(self) -> bool:
        """Whether the body arrives in so many tiny pieces that it occupies the CPU."""
        return self._pieces > _MANY_PIECES and self._received < _TINY_PIECE * self._pieces

    def timeout_kind(self, now: float) -> str | None:
        """Return the failure kind if the transfer is too late or too slow at `now`, else None."""
        polite = self._politeness
        if now - self._start > polite.total_timeout:
            return "total_timeout"
        if self._first is None:
            return "first_byte_timeout" if now - self._start > polite.first_byte_timeout else None
        if now - self._window >= polite.min_speed_window:
            speed = (self._received - self._received_before) / (now - self._window)
            self._window, self._received_before = now, self._received
            if speed < polite.min_speed:
                return "too_slow"
        return None

"""The outcome of one request, in the types that every transport uses.

A transport sends one request, without redirects and retries, and returns a `RawResponse` or a
`RequestFailure`. What a response means is decided here, the same for every transport.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pipeline.credentials import split_user
from pipeline.web.failures import FAILURE_KINDS, kind_of_status
from pipeline.web.opt_out.directives import (
    Reservation,
    header_reservation,
    header_signals,
    meta_reservation,
)
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.opt_out.xml import read_metas
from pipeline.web.politeness import Politeness
from pipeline.web.transfers import retry_after

REDIRECTS = frozenset((301, 302, 303, 307, 308))

_GZIP = ("gzip", "x-gzip")
_OTHERS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 10_000
_HEAD = 5
"""Number of bytes needed to detect the coding."""


@dataclass(frozen=True)
class RawResponse:
    """The response to one request, with header names in lower case. `signals` are the opt-out
    signals found for it, all of them overridden."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    signals: tuple[Signal, ...] = ()

    @property
    def content_type(self) -> str:
        """The media type, lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Response(RawResponse):
    """A successful response (2xx or 304) after redirects and retries; `url` is the final URL."""

    attempts: int = 1


def response_of(response: RawResponse, attempts: int) -> Response:
    """Return the successful response after `attempts`, without user and password in its URL."""
    return Response(**{**vars(response), "url": split_user(response.url)[0]}, attempts=attempts)


@dataclass(frozen=True)
class RequestFailure:
    """What went wrong with one request. `partial` is the part of a body that can be resumed.
    If `retries_exhausted`, it is not retried even if its kind is retryable."""

    kind: str
    detail: str = ""
    status: int | None = None
    retry_after: float | None = None
    partial: RawResponse | None = None
    retries_exhausted: bool = False

    @property
    def retryable(self) -> bool:
        return FAILURE_KINDS[self.kind]


_MEDIAWIKI_BUSY = frozenset(("maxlag", "ratelimited"))
"""MediaWiki's API reports overload with a status of 200 (API:Etiquette, Manual:Maxlag)."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_SLICE = 1 << 16
MAX_POLICY = 512 * 1024
"""Maximum bytes to read of a policy file; RFC 9309, 2.5, requires 500 KiB for robots.txt."""


@dataclass(frozen=True)
class UrlPolicy:
    """What the policy files of a host state about one URL: opt-out signals, and the reservation in
    tdmrep.json, which headers and the page itself may override."""

    signals: tuple[Signal, ...] = ()
    reservation: Reservation | None = None


NO_POLICY = UrlPolicy()


def check_response(
    politeness: Politeness,
    response: RawResponse,
    now: datetime | None = None,
    is_policy: bool = False,
    policy: UrlPolicy = NO_POLICY,
) -> RawResponse | RequestFailure:
    """Return the decoded response if it is a success or redirect, else the failure it means.

    Opt-out signals in the headers of a policy file (`is_policy`) are ignored.
    """
    if not (200 <= response.status < 300 or response.status == 304 or response.status in REDIRECTS):
        delay = retry_after(response.headers.get("retry-after", ""), now)
        detail = "" if delay is None else f"Retry-After {delay:.0f} s"
        return RequestFailure(kind_of_status(response.status), detail, response.status, delay)
    if busy := _MEDIAWIKI_BUSY & set(response.headers.get("mediawiki-api-error", "").split(", ")):
        delay = retry_after(response.headers.get("retry-after", ""), now)
        return RequestFailure(kind_of_status(503), "".join(busy), response.status, delay)
    if is_policy:
        return decompress(response, MAX_POLICY, may_break_off=True)
    good = decompress(response, politeness.max_bytes)
    whole = good if isinstance(good, RawResponse) else response
    signals = [*policy.signals, *header_signals(response.headers, politeness.user_agent)]
    reservation = stated_reservation(whole, policy.reservation) or policy.reservation
    signals += reservation.signals() if reservation else ()
    if refusing := politeness.refusing(signals):
        return RequestFailure("opt_out", describe(refusing), response.status)
    if signals and isinstance(good, RawResponse):
        return replace(good, signals=tuple(dict.fromkeys(signals)))
    return good


def stated_reservation(
    response: RawResponse, default: Reservation | None = None
) -> Reservation | None:
    """Return the reservation of text and data mining that a response itself states, or None.

    A meta element overrides the header, and both override `default`. A page is parsed only if that
    can lift a reservation.
    """
    stated = header_reservation(response.headers)
    reservation = stated or default
    if reservation and reservation.reserved and "html" in response.content_type and response.body:
        stated = meta_reservation(read_metas(response.body)) or stated
    return stated


def decompress(
    response: RawResponse, max_bytes: int, may_break_off: bool = False
) -> RawResponse | RequestFailure:
    """Return the response with Content-Encoding decoded; servers use it even if not requested.

    A decoded body over `max_bytes`, or a truncated one, is a failure; with `may_break_off`, its
    first part is returned.
    """
    header = response.headers.get("content-encoding", "")
    if not header or not response.body:
        return response
    pieces: list[bytes] = []
    try:
        decoder = Decoder(header, max_bytes)
        starts = range(0, len(response.body), _SLICE)
        pieces.extend(decoder.feed(response.body[start : start + _SLICE]) for start in starts)
        pieces.append(decoder.finish())
    except CodingError as error:
        if not may_break_off or error.kind == "protocol":
            return RequestFailure(error.kind, str(error), response.status)
    if decoder.is_over and not may_break_off:
        return RequestFailure(
            "too_large", f"over {max_bytes} bytes when decompressed", response.status
        )
    body = b"".join(pieces)[:max_bytes]
    headers = {**response.headers, "content-length": str(len(body))}
    del headers["content-encoding"]
    return replace(response, headers=headers, body=body)


class CodingError(Exception):
    """A body cannot be decoded; `kind` is the failure kind."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Decoder:
    """Decodes gzip or deflate piece by piece, up to a size limit.

    A body that is declared as gzip or deflate but is neither is returned unchanged: some servers
    declare a coding and send plain bytes. So is a body with an unknown coding, such as `utf-8`.

    Args:
        header: the Content-Encoding header.
        limit: at most `limit` + 1 bytes are returned; `is_over` is then true.

    Raises:
        CodingError: the header names a coding that was not requested, or several.
    """

    def __init__(self, header: str, limit: int) -> None:
        codings = [part.strip().lower() for part in header.split(",")]
        known = [one for one in codings if one in (*_GZIP, *_OTHERS, "deflate")]
        if len(known) > 1 or set(known) & set(_OTHERS):
            raise CodingError(
                "protocol", f"Content-Encoding {header[:60]}, which was not requested"
            )
        self._coding = known[0] if known else ""
        self._limit = limit
        self._nbytes = 0
        self._members = 0
        self._start = b""
        self._begun = not self._coding
        self._unpack: Any = None

    @property
    def is_over(self) -> bool:
        """Whether the body is longer than the limit."""
        return self._nbytes > self._limit

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes of `data`.

        Raises:
            CodingError: the data is damaged.
        """
        if not self._begun:
            self._start += data
            if len(self._start) < _HEAD:
                return b""
            data, self._start = self._start, b""
            self._begin(data)
        return self._decoded(data)

    def finish(self) -> bytes:
        """Return the last decoded bytes.

        Raises:
            CodingError: the body is truncated.
        """
        rest = b""
        if not self._begun and self._start:
            self._begin(self._start)
            rest = self._decoded(self._start)
        if self._unpack is not None and not self._unpack.eof and not self.is_over:
            raise CodingError("truncated", f"Content-Encoding {self._coding} breaks off")
        return rest

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if data.startswith(_MAGIC):  # even if the header says deflate
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif self._coding == "deflate":
            # With a zlib header, or raw deflate as some servers send it.
            for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
                try:
                    zlib.decompressobj(bits).decompress(data, 1)
                except zlib.error:
                    continue
                self._unpack = zlib.decompressobj(bits)
                return

    def _decoded(self, data: bytes) -> bytes:
        if self._unpack is None:
            data = data[: self._room]
            self._nbytes += len(data)
            return data
        pieces = []
        try:
            while data and not self.is_over:
                if self._unpack.eof:  # another gzip member may follow; other bytes are ignored
                    self._members += 1
                    if not data.startswith(_MAGIC) or self._members > _MAX_MEMBERS:
                        break
                    self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
                pieces.append(self._unpack.decompress(data, self._room))
                self._nbytes += len(pieces[-1])
                data = self._unpack.unused_data
        except zlib.error as error:
            raise CodingError("protocol", f"Content-Encoding {self._coding}: {error}") from None
        return b"".join(pieces)

    @property
    def _room(self) -> int:
        return max(0, self._limit - self._nbytes + 1)

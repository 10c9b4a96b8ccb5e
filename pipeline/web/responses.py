"""The outcome of one request, in the types that every transport uses.

A transport sends one request, without redirects and retries, and returns a `RawResponse` or a
`RequestFailure`. What a response means is decided here, the same for every transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from pipeline.credentials import split_user
from pipeline.web.codings import CodingError, Decoder
from pipeline.web.failures import FAILURE_KINDS, kind_of_status
from pipeline.web.headers import retry_after
from pipeline.web.opt_out.directives import header_signals
from pipeline.web.opt_out.page_metas import read_metas
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.opt_out.tdmrep import Reservation, header_reservation, meta_reservation
from pipeline.web.politeness import Politeness

REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True)
class RawResponse:
    """The raw answer to one request; header names in lower case. `signals` are the opt-out signals
    that were seen for it and are overridden."""

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
    """A good answer (2xx, or 304) after redirects and retries: `url` is the final one."""

    attempts: int = 1


def response_of(answer: RawResponse, attempts: int) -> Response:
    """Return the good answer after so many requests; its URL is without a user and password."""
    return Response(**{**vars(answer), "url": split_user(answer.url)[0]}, attempts=attempts)


@dataclass(frozen=True)
class RequestFailure:
    """What went wrong with one request. `partial` is what can be resumed, if anything; a
    `final` one was tried again already."""

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
"""MediaWiki's API says with a status of 200 that it is busy (API:Etiquette, Manual:Maxlag)."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_SLICE = 1 << 16
MAX_POLICY = 512 * 1024
"""Bytes read of a robots.txt; RFC 9309, 2.5, asks for 500 KiB or more. The rest is left."""


@dataclass(frozen=True)
class UrlPolicy:
    """What the policy files of a host say about one URL: opt-out signals, and the reservation of
    its tdmrep.json, which headers and the page itself may override."""

    signals: tuple[Signal, ...] = ()
    reservation: Reservation | None = None


NO_POLICY = UrlPolicy()


def check_response(
    politeness: Politeness,
    answer: RawResponse,
    now: datetime | None = None,
    is_policy: bool = False,
    policy: UrlPolicy = NO_POLICY,
) -> RawResponse | RequestFailure:
    """Return a good or redirecting answer as it is; any other as its trouble. A robots.txt
    (`is_policy`) is what policy is read from, so its own opt-out headers mean nothing."""
    if not (200 <= answer.status < 300 or answer.status == 304 or answer.status in REDIRECTS):
        asked = retry_after(answer.headers.get("retry-after", ""), now)
        detail = "" if asked is None else f"Retry-After {asked:.0f} s"
        return RequestFailure(kind_of_status(answer.status), detail, answer.status, asked)
    if busy := _MEDIAWIKI_BUSY & set(answer.headers.get("mediawiki-api-error", "").split(", ")):
        asked = retry_after(answer.headers.get("retry-after", ""), now)
        return RequestFailure(kind_of_status(503), "".join(busy), answer.status, asked)
    if is_policy:
        return decompress(answer, MAX_POLICY, may_break_off=True)
    good = decompress(answer, politeness.max_bytes)
    whole = good if isinstance(good, RawResponse) else answer
    signals = [*policy.signals, *header_signals(answer.headers, politeness.user_agent)]
    reservation = stated_reservation(whole, policy.reservation) or policy.reservation
    signals += reservation.signals() if reservation else ()
    if refusing := politeness.refusing(signals):
        return RequestFailure("opt_out", describe(refusing), answer.status)
    if signals and isinstance(good, RawResponse):
        return replace(good, signals=tuple(dict.fromkeys(signals)))
    return good


def stated_reservation(
    answer: RawResponse, default: Reservation | None = None
) -> Reservation | None:
    """Return the reservation of text and data mining that an answer itself states, if any.

    A meta element overrides the header, and both override `default`; pages are only searched for
    one if it makes a difference.
    """
    stated = header_reservation(answer.headers)
    reservation = stated or default
    if reservation and reservation.reserved and "html" in answer.content_type and answer.body:
        stated = meta_reservation(read_metas(answer.body)) or stated
    return stated


def decompress(
    answer: RawResponse, max_bytes: int, may_break_off: bool = False
) -> RawResponse | RequestFailure:
    """Return the answer without its Content-Encoding, which may be there though nobody asked for
    it.

    What it unpacks to is bounded like any body; `may_break_off` takes what there is of more.
    """
    header = answer.headers.get("content-encoding", "")
    if not header or not answer.body:
        return answer
    pieces: list[bytes] = []
    try:
        decoder = Decoder(header, max_bytes)
        starts = range(0, len(answer.body), _SLICE)
        pieces.extend(decoder.feed(answer.body[start : start + _SLICE]) for start in starts)
        pieces.append(decoder.finish())
    except CodingError as error:
        if not may_break_off or error.kind == "protocol":
            return RequestFailure(error.kind, str(error), answer.status)
    if decoder.is_over and not may_break_off:
        return RequestFailure("too_large", f"over {max_bytes} bytes unpacked", answer.status)
    body = b"".join(pieces)[:max_bytes]
    headers = {**answer.headers, "content-length": str(len(body))}
    del headers["content-encoding"]
    return replace(answer, headers=headers, body=body)

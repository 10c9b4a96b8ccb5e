"""One request and what came of it: the words that every transport speaks.

A transport makes one request, without redirects and retries, and answers an `Answer` or a
`Trouble`. What an answer means is judged here, the same for every transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from urllib.parse import urljoin

import tenacity

from pipeline.credentials import split_user
from pipeline.web.codings import CodingError, Decoder
from pipeline.web.failures import FAILURE_KINDS, kind_of_status
from pipeline.web.headers import retry_after
from pipeline.web.opt_out.directives import header_signals
from pipeline.web.opt_out.page_metas import read_metas
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.opt_out.tdmrep import Reservation, header_reservation, meta_reservation
from pipeline.web.politeness import Politeness
from pipeline.web.urls import request_url

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
    """The good answer after so many requests; its URL is without a user and password."""
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
_LONGEST_URL = 16_384
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
    """A good or redirecting answer as it is; any other as its trouble. A robots.txt (`is_policy`)
    is what policy is read from, so its own opt-out headers mean nothing."""
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
    """The reservation of text and data mining that an answer itself states, if any.

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
    """The answer without its Content-Encoding, which may be there though nobody asked for it.

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


def redirect_target(answer: RawResponse) -> str | RequestFailure:
    """The absolute URL that a redirect leads to, as a request is made for it.

    A Location comes as bytes of any kind: UTF-8 is what most mean, and what is not is escaped byte
    for byte, as browsers do.
    """
    location = answer.headers.get("location", "").strip(" \t")
    if not location:
        return RequestFailure("bad_redirect", "no Location", answer.status)
    if len(location) > _LONGEST_URL:
        return RequestFailure("bad_redirect", f"a Location of {len(location)} bytes", answer.status)
    raw = location.encode("latin-1", "replace")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in raw)
    try:
        return request_url(urljoin(answer.url, text))
    except ValueError as error:
        return RequestFailure("bad_redirect", str(error), answer.status)


class _RetryAfterOrJitter(tenacity.wait.wait_base):
    """Exponential backoff with full jitter, and never sooner than the server asked for."""

    def __init__(self, politeness: Politeness) -> None:
        self._jitter = tenacity.wait_random_exponential(
            multiplier=politeness.backoff, max=politeness.max_backoff
        )

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        trouble = retry_state.outcome.result() if retry_state.outcome else None
        asked = trouble.retry_after if isinstance(trouble, RequestFailure) else None
        return max(self._jitter(retry_state), asked or 0.0)


_RETRY_NEXT_RUN = frozenset(("host_resting", "quota_page"))
"""Retryable, but not in this run: minutes do not help."""


def retry_policy(politeness: Politeness) -> tenacity.Retrying:
    """When to try again, and how long to wait before."""

    def worth_it(result: object) -> bool:
        return (
            isinstance(result, RequestFailure)
            and result.retryable
            and not result.retries_exhausted
            and result.kind not in _RETRY_NEXT_RUN
            and (result.retry_after or 0.0) <= politeness.max_wait
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(worth_it),
        stop=tenacity.stop_after_attempt(politeness.attempts),
        wait=_RetryAfterOrJitter(politeness),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )

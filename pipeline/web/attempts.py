"""What follows a response: a redirect, a retry, or a request for the rest of the body (Range and
If-Range, RFC 9110, 13.1.5 and 14).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_tz
from urllib.parse import urljoin

import tenacity

from pipeline.web.politeness import Politeness
from pipeline.web.responses import NO_HEADERS, RawResponse, RequestFailure
from pipeline.web.urls import request_url, with_slashes

_MAX_LOCATION = 16_384
"""Length of the longest Location that is followed, in characters."""

FILE_ATTEMPTS = 2
"""Maximum number of attempts for a policy file other than robots.txt."""

_RETRY_NEXT_RUN = frozenset(("host_cooldown", "quota_page"))
"""Failures that are worth retrying, but not within minutes."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_STRONG_ETAG = re.compile('"[\x21\x23-\x7e\x80-\xff]{0,1000}"')


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

    A Location that is not valid UTF-8 is percent-encoded byte by byte, and backslashes in it are
    slashes, as in browsers.
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
        return request_url(urljoin(response.url, with_slashes(text)))
    except ValueError as error:
        return RequestFailure("bad_redirect", str(error), response.status)


class _RetryAfterOrJitter(tenacity.wait.wait_base):
    """Exponential backoff with full jitter, at least as long as the server's Retry-After."""

    def __init__(self, politeness: Politeness) -> None:
        self._jitter = tenacity.wait_random_exponential(
            multiplier=politeness.backoff, max=politeness.max_backoff
        )

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        failure = retry_state.outcome.result() if retry_state.outcome else None
        delay = failure.retry_after if isinstance(failure, RequestFailure) else None
        return max(self._jitter(retry_state), delay or 0.0)


def _retry_policy(politeness: Politeness, attempts: int | None) -> tenacity.Retrying:
    """Return the retry policy of `politeness`, for at most `attempts` attempts if given."""

    def is_worth_retrying(result: object) -> bool:
        return (
            isinstance(result, RequestFailure)
            and result.retryable
            and not result.retries_exhausted
            and result.kind not in _RETRY_NEXT_RUN
            and (result.retry_after or 0.0) <= politeness.max_wait
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(is_worth_retrying),
        stop=tenacity.stop_after_attempt(min(attempts or politeness.attempts, politeness.attempts)),
        wait=_RetryAfterOrJitter(politeness),
    )


def delay_before_retry(
    politeness: Politeness, attempts: int, failure: RequestFailure, max_attempts: int | None = None
) -> float | None:
    """Return the seconds to wait after `attempts` attempts, or None not to retry.

    Args:
        max_attempts: fewer attempts than those of `politeness`.
    """
    policy = _retry_policy(politeness, max_attempts)
    state = tenacity.RetryCallState(policy, None, (), {})
    state.attempt_number = attempts
    state.set_result(failure)
    if not policy.retry(state) or policy.stop(state):
        return None
    return float(policy.wait(state))


def resume_headers(partial: RawResponse | None) -> Mapping[str, str]:
    """Return the headers that request the rest of `partial`; empty if it cannot be resumed safely.

    Resuming needs a validator that identifies the same bytes: a strong ETag, or Last-Modified.
    """
    if partial is None or partial.status not in (200, 206) or not partial.body:
        return NO_HEADERS
    headers = partial.headers
    if headers.get("accept-ranges", "bytes").lower() == "none" or "content-encoding" in headers:
        return NO_HEADERS
    etag, date = headers.get("etag", ""), headers.get("last-modified", "")[:100]
    if _STRONG_ETAG.fullmatch(etag):
        validator = etag
    elif date.isascii() and date.isprintable() and parsedate_tz(date):
        validator = date
    else:
        return NO_HEADERS
    return {"Range": f"bytes={len(partial.body)}-", "If-Range": validator}


def join_ranges(
    partial: RawResponse | None, response: RawResponse, max_bytes: int
) -> RawResponse | RequestFailure:
    """Join a partial body with the range response that continues it, up to `max_bytes`.

    Other responses are returned unchanged, except 416, which fails as `truncated`.
    """
    if response.status == 416 and partial is not None:
        return RequestFailure("truncated", "the server has no such range", response.status)
    if response.status != 206:
        return response
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if partial is None or match is None:
        return RequestFailure("protocol", "a range that was not requested", response.status)
    if int(match[1]) != len(partial.body):
        return RequestFailure(
            "truncated", f"requested bytes from {len(partial.body)}, received {match[0]}"
        )
    body = partial.body + response.body
    if len(body) > max_bytes:
        return RequestFailure("too_large", f"over {max_bytes} bytes")
    if match[3] != "*" and len(body) != int(match[3]):
        return RequestFailure("truncated", f"{len(body)} of {match[3]} bytes")
    headers = {**partial.headers, **response.headers, "content-length": str(len(body))}
    headers.pop("content-range", None)
    return replace(response, status=200, headers=headers, body=body)


def append_range(before: RawResponse | None, piece: RawResponse | None) -> RawResponse | None:
    """Return the part of a body received so far, including another interrupted piece."""
    if before is None or piece is None or piece.status != 206:
        return piece or before
    match = _CONTENT_RANGE.fullmatch(piece.headers.get("content-range", "").strip())
    if match is None or int(match[1]) != len(before.body):
        return None
    return replace(before, body=before.body + piece.body)


def timed_out(kind: str, received: int, partial: RawResponse | None = None) -> RequestFailure:
    """Return the failure of a transfer that timed out.

    A body that was still arriving at the total timeout would time out again from the beginning: it
    is retried only if its length is known and it can be resumed.
    """
    final = kind == "total_timeout" and received > 0 and (
        partial is None or "content-length" not in partial.headers or not resume_headers(partial)
    )  # fmt: skip
    more = "; more was still arriving" if final else ""
    return RequestFailure(
        kind, f"{received} bytes by then{more}", partial=partial, retries_exhausted=final
    )

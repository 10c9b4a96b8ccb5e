"""Sends single requests by the requests library, for pages."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.cookiejar import Cookie
from pathlib import Path
from typing import IO, Any

import requests
import urllib3
from requests.cookies import RequestsCookieJar

from pipeline.credentials import split_user
from pipeline.web.attempts import timed_out
from pipeline.web.connections import (
    GuardedAdapter,
    GuardedSession,
    PrivateAddressError,
    Watch,
    certificates,
    current,
)
from pipeline.web.host_headers import request_headers
from pipeline.web.politeness import Politeness
from pipeline.web.responses import CodingError, Decoder, RawResponse, RequestFailure
from pipeline.web.transfers import MAX_ERROR_BODY, TINY_PIECES, refused_head, sendable

_CHUNK = 1 << 16
_MOST_COOKIES = 50
_CODING_OVERHEAD = 1 << 16
"""Maximum number of bytes by which a compressed body may exceed its content."""


class DiskError(Exception):
    """Writing the body to the disk failed with `reason`."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class BodyLimit:
    """The maximum size of a body in bytes, and where to store it.

    A longer body is refused, or truncated with `may_cut`. With `copy`, the body of a 2xx is written
    to that file instead of into memory, and there is no total timeout while it is fast enough.
    """

    nbytes: int
    may_cut: bool = False
    copy: Path | None = None


_NO_TIMEOUT = 7 * 86400.0


class _Cookies(RequestsCookieJar):
    """Cookies that sites set, which some need from page to page; kept in memory, and only few of
    each site: one that sets one per page would soon get requests that it refuses for their length.
    """

    def set_cookie(self, cookie: Cookie, *args: Any, **options: Any) -> None:
        others = (one for one in self if one.domain == cookie.domain and one.name != cookie.name)
        if sum(1 for _ in others) >= _MOST_COOKIES:
            self.clear(cookie.domain)
        super().set_cookie(cookie, *args, **options)


class RequestsTransport:
    """Sends requests over persistent connections. Thread-safe."""

    def __init__(self, politeness: Politeness) -> None:
        self._politeness = politeness
        self._session = GuardedSession()
        self._session.trust_env = False
        self._session.verify = certificates()
        self._session.headers.clear()
        self._session.cookies = _Cookies()
        adapter = GuardedAdapter(politeness.allow_private, size=politeness.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def request(
        self, url: str, headers: Mapping[str, str], limit: BodyLimit, watch: Watch | None = None
    ) -> RawResponse | RequestFailure:
        """Send one GET for `url`, which must be normalized by `urls.request_url`.

        Args:
            limit: the limit of the body.
            watch: reports the progress to other threads.

        Raises:
            DiskError: the body cannot be copied to the disk.
        """
        polite = self._politeness
        watch = watch or Watch()
        watch.start(replace(polite, total_timeout=_NO_TIMEOUT) if limit.copy else polite)
        current.watch = watch
        try:
            return self._request(url, headers, watch, limit)
        except CodingError as error:
            if watch.timeout_kind:
                return timed_out(watch.timeout_kind, watch.nbytes)
            return RequestFailure(error.kind, str(error))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if watch.timeout_kind:
                return timed_out(watch.timeout_kind, watch.nbytes)
            return _failure_of(error, watch.nbytes, watch.timeouts.has_started)
        finally:
            watch.stop()
            current.watch = None

    def _request(
        self, url: str, headers: Mapping[str, str], watch: Watch, limit: BodyLimit
    ) -> RawResponse | RequestFailure:
        polite = self._politeness
        bare, _ = split_user(url)
        with ExitStack() as stack, self._session.get(
            bare,
            headers={
                "User-Agent": polite.full_user_agent, "Accept-Encoding": "gzip, deflate",
                "Accept": "*/*", **polite.headers, **sendable(headers),
                **request_headers(polite, url),
            },
            timeout=(polite.connect_timeout, polite.first_byte_timeout),
            stream=True,
            allow_redirects=False,
        ) as response:  # fmt: skip
            watch.timeouts.received(0, time.monotonic())
            status = response.status_code
            head = {name.lower(): value for name, value in response.headers.items()}
            nbytes, may_cut = limit.nbytes, limit.may_cut
            if not 200 <= status < 300:  # the body of an error is not used
                nbytes, may_cut = min(nbytes, MAX_ERROR_BODY), True
            wrong = refused_head(head, None if may_cut else nbytes)
            if wrong is not None:
                return RequestFailure(*wrong, status=status)
            body = io.BytesIO()
            copied = limit.copy if 200 <= status < 300 else None
            into = stack.enter_context(_open_file(copied)) if copied else body
            late = self._read_body(response, head, into, nbytes, may_cut, watch)
            if late is not None:
                return late
            head.pop("content-encoding", None)  # decoded by _read_body
            return RawResponse(url, status, head, body.getvalue()[:nbytes])

    def _read_body(
        self, response: requests.Response, head: Mapping[str, str], into: IO[bytes], nbytes: int,
        may_cut: bool, watch: Watch,
    ) -> RequestFailure | None:  # fmt: skip
        """Write the decoded body `into` a file; return what is wrong with it, or None."""
        decoder = Decoder(head.get("content-encoding", ""), nbytes)
        more = True
        while more:
            chunk = response.raw.read1(_CHUNK, decode_content=False)
            more = bool(chunk)
            piece = decoder.feed(chunk) if more else decoder.finish()
            watch.nbytes += len(chunk)
            try:
                into.write(piece)
            except OSError as error:
                raise DiskError(error) from error
            now = time.monotonic()
            watch.timeouts.received(len(chunk), now)
            late = watch.timeout_kind or watch.timeouts.timeout_kind(now)
            if late:
                return timed_out(late, watch.nbytes)
            if watch.timeouts.has_tiny_pieces:
                return RequestFailure("protocol", TINY_PIECES)
            if decoder.is_over or watch.nbytes > nbytes + _CODING_OVERHEAD:
                return None if may_cut else RequestFailure("too_large", f"over {nbytes} bytes")
        return None


def _open_file(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise DiskError(error) from error


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error with all its causes and the errors it wraps."""
    seen: list[BaseException] = []
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and current not in seen:
            seen.append(current)
            queue += [current.__cause__, current.__context__, getattr(current, "reason", None)]
            queue += list(current.args)
    return seen


def _failure_of(error: Exception, received: int, began: bool) -> RequestFailure:
    """Return the failure for an exception of requests or urllib3.

    Args:
        received: bytes of the body received.
        began: whether the headers had arrived.
    """
    causes = _causes(error)
    detail = str(causes[-1]) or type(causes[-1]).__name__
    for cause in causes:
        if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError):
            line = str(cause.args[0]).rstrip("\r\n")
            detail = f"status line {line[:60]!r}"

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    for kind, types in _KINDS:
        if has(*types):
            if began:
                later = {"connection_lost": "truncated", "protocol": "truncated",
                         "first_byte_timeout": "too_slow"}  # fmt: skip
                return RequestFailure(later.get(kind, kind), f"{received} bytes, then {detail}")
            return RequestFailure(kind, detail)
    return RequestFailure("unreachable", detail)


_KINDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("private_address", (PrivateAddressError,)),
    ("bad_url", (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                 requests.exceptions.MissingSchema, urllib3.exceptions.LocationParseError)),
    ("dns", (socket.gaierror,)),
    ("tls", (urllib3.exceptions.SSLError, requests.exceptions.SSLError)),
    ("refused", (ConnectionRefusedError,)),
    ("unreachable", (urllib3.exceptions.NewConnectionError,)),
    ("connect_timeout", (urllib3.exceptions.ConnectTimeoutError,)),
    ("first_byte_timeout", (urllib3.exceptions.ReadTimeoutError, TimeoutError)),
    ("truncated", (urllib3.exceptions.IncompleteRead,)),
    ("connection_lost", (ConnectionError,)),
    ("protocol", (urllib3.exceptions.HTTPError, requests.exceptions.RequestException)),
)  # fmt: skip

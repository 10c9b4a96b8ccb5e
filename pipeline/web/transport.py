"""One request by requests: for pages, robots.txt and whatever a crawler reads one at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.web.addresses import is_public, resolve
from pipeline.web.exchange import Answer, Trouble
from pipeline.web.pace import Pace
from pipeline.web.politeness import Politeness

_CHUNK = 1 << 16


class _PrivateAddressError(OSError):
    """The name leads to an address that is not on the public internet."""


class _Watch:
    """The clock of one request: ends it from outside when its time is up.

    A timeout of requests is a socket's, for each read; a server that drips never meets it.
    """

    def __init__(self, politeness: Politeness) -> None:
        self.pace = Pace(politeness, time.monotonic())
        self.cut_as: str | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timers = [
            threading.Timer(seconds, self._look)
            for seconds in (politeness.first_byte_timeout, politeness.total_timeout)
        ]
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def uses(self, sock: socket.socket | None) -> None:
        """The request goes over this socket."""
        with self._lock:
            self._socket = sock

    def _look(self) -> None:
        kind = self.pace.late(time.monotonic() + 0.001)
        with self._lock:
            if kind and self._socket is not None:
                self.cut_as = kind
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which would tear its state from under the reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Current(threading.local):
    """The watch of the request under way in this thread."""

    watch: _Watch | None = None


_current = _Current()


def _watched(sock: Any) -> None:
    if _current.watch is not None:
        _current.watch.uses(sock)


class _GuardedHTTP(HTTPConnection):
    """A connection to public addresses alone. The peer is checked before a byte is sent."""

    allow_private = False

    def _new_conn(self) -> socket.socket:
        return _guarded(self, super()._new_conn, self.allow_private)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        _watched(self.sock)
        return super().getresponse()


class _GuardedHTTPS(HTTPSConnection):
    allow_private = False

    def _new_conn(self) -> socket.socket:
        return _guarded(self, super()._new_conn, self.allow_private)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        _watched(self.sock)
        return super().getresponse()


def _guarded(connection: HTTPConnection, connect: Any, allow_private: bool) -> socket.socket:
    if not allow_private:
        try:
            addresses = resolve(connection.host, connection.port or 0)
        except OSError:
            addresses = []  # urllib3 says it in its own words
        for address in addresses:
            if not is_public(address):
                raise _PrivateAddressError(f"{connection.host} is {address}")
    sock = cast(socket.socket, connect())
    peer = str(sock.getpeername()[0])
    if not allow_private and not is_public(peer):
        sock.close()
        raise _PrivateAddressError(f"{connection.host} is {peer}")
    _watched(sock)
    return sock


class _Adapter(HTTPAdapter):
    def __init__(self, allow_private: bool, size: int) -> None:
        self._allow_private = allow_private
        super().__init__(pool_connections=64, pool_maxsize=size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        allow = {"allow_private": self._allow_private}
        http = type("_HTTP", (_GuardedHTTP,), allow)
        https = type("_HTTPS", (_GuardedHTTPS,), allow)
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("_HTTPPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("_HTTPSPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": https}),
        }


def certificates() -> str:
    """The file of certificate authorities: $SSL_CERT_FILE, or certifi's."""
    return os.environ.get("SSL_CERT_FILE") or certifi.where()


class RequestsTransport:
    """Requests over kept-alive connections; usable from several threads."""

    def __init__(self, politeness: Politeness) -> None:
        self._politeness = politeness
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = certificates()
        self._session.headers.clear()
        adapter = _Adapter(politeness.allow_private, size=politeness.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def request(self, url: str, headers: Mapping[str, str]) -> Answer | Trouble:
        """GET `url` once."""
        watch = _current.watch = _Watch(self._politeness)
        got = bytearray()
        try:
            return self._request(url, headers, watch, got)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if watch.cut_as:
                return Trouble(watch.cut_as, f"{len(got)} bytes by then")
            return _trouble(error, len(got), watch.pace.began)
        finally:
            watch.stop()
            _current.watch = None

    def _request(
        self, url: str, headers: Mapping[str, str], watch: _Watch, got: bytearray
    ) -> Answer | Trouble:
        polite = self._politeness
        with self._session.get(
            url,
            headers={
                "User-Agent": polite.agent, "Accept-Encoding": "gzip, deflate",
                "Accept": "*/*", **polite.headers, **headers,
            },
            timeout=(polite.connect_timeout, polite.first_byte_timeout),
            stream=True,
            allow_redirects=False,
        ) as response:  # fmt: skip
            watch.pace.received(0, time.monotonic())
            announced = response.headers.get("content-length", "")
            if announced.isdecimal() and int(announced) > polite.max_bytes:
                return Trouble("too_large", f"{announced} bytes announced")
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                got += chunk
                now = time.monotonic()
                watch.pace.received(len(chunk), now)
                late = watch.pace.late(now)
                if late:
                    return Trouble(late, f"{len(got)} bytes by then")
                if len(got) > polite.max_bytes:
                    return Trouble("too_large", f"over {polite.max_bytes} bytes")
            if watch.cut_as:
                return Trouble(watch.cut_as, f"{len(got)} bytes by then")
            lower = {name.lower(): value for name, value in response.headers.items()}
            lower.pop("content-encoding", None)  # undone by now
            return Answer(url, response.status_code, lower, bytes(got))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything it came from or wraps."""
    seen: list[BaseException] = []
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and current not in seen:
            seen.append(current)
            queue += [current.__cause__, current.__context__, getattr(current, "reason", None)]
            queue += list(current.args)
    return seen


def _trouble(error: Exception, received: int, began: bool) -> Trouble:
    """The kind of trouble that an exception of requests and urllib3 means; `began` says whether
    the head of the answer was there."""
    causes = _causes(error)
    detail = str(causes[-1]) or type(causes[-1]).__name__

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    for kind, types in _KINDS:
        if has(*types):
            if began:
                later = {"connection_lost": "truncated", "protocol": "truncated",
                         "first_byte_timeout": "too_slow"}  # fmt: skip
                return Trouble(later.get(kind, kind), f"{received} bytes, then {detail}")
            return Trouble(kind, detail)
    return Trouble("unreachable", detail)


_KINDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("private_address", (_PrivateAddressError,)),
    ("bad_url", (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                 requests.exceptions.MissingSchema, urllib3.exceptions.LocationParseError)),
    ("dns", (socket.gaierror,)),
    ("tls", (urllib3.exceptions.SSLError, requests.exceptions.SSLError)),
    ("refused", (ConnectionRefusedError,)),
    ("connect_timeout", (urllib3.exceptions.ConnectTimeoutError,)),
    ("first_byte_timeout", (urllib3.exceptions.ReadTimeoutError, TimeoutError)),
    ("truncated", (urllib3.exceptions.IncompleteRead,)),
    ("unreachable", (urllib3.exceptions.NewConnectionError,)),
    ("connection_lost", (ConnectionError,)),
    ("protocol", (urllib3.exceptions.HTTPError, requests.exceptions.RequestException)),
)  # fmt: skip

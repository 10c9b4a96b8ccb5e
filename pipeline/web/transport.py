"""One request by requests: for pages, robots.txt and whatever a crawler reads one at a time."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
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


class _DiskError(Exception):
    """What the disk said, not the line."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


class _Watch:
    """The clock of one request: ends it from outside when its time is up.

    A timeout of requests is a socket's, for each read; a server that drips never meets it.
    """

    def __init__(self, politeness: Politeness) -> None:
        self.pace = Pace(politeness, time.monotonic())
        self.cut_as: str | None = None
        self.nbytes = 0
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


def _private(host: str, address: str) -> str:
    leads = "" if host == address else f"leads to {address}, "
    return f"{host}: {leads}on this machine or network; politeness.allow_private admits it"


def _guarded(connection: HTTPConnection, connect: Any, allow_private: bool) -> socket.socket:
    if not allow_private:
        try:
            addresses = resolve(connection.host, connection.port or 0)
        except OSError:
            addresses = []  # urllib3 says it in its own words
        for address in addresses:
            if not is_public(address):
                raise _PrivateAddressError(_private(connection.host, address))
    sock = cast(socket.socket, connect())
    peer = str(sock.getpeername()[0])
    if not allow_private and not is_public(peer):
        sock.close()
        raise _PrivateAddressError(_private(connection.host, peer))
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


@dataclass(frozen=True)
class Copy:
    """Where the body of a 200 goes instead of into memory: it may be of `max_bytes`, and take as
    long as it comes fast enough."""

    path: Path
    max_bytes: int


_FOR_EVER = 7 * 86400.0


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

    def request(
        self, url: str, headers: Mapping[str, str], copy: Copy | None = None
    ) -> Answer | Trouble:
        """GET `url` once.

        Raises:
            OSError: the body cannot be copied to the disk.
        """
        polite = self._politeness
        watch = _current.watch = _Watch(
            replace(polite, total_timeout=_FOR_EVER) if copy else polite
        )
        try:
            return self._request(url, headers, watch, copy)
        except _DiskError as error:
            raise error.reason from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if watch.cut_as:
                return Trouble(watch.cut_as, f"{watch.nbytes} bytes by then")
            return _trouble(error, watch.nbytes, watch.pace.began)
        finally:
            watch.stop()
            _current.watch = None

    def _request(
        self, url: str, headers: Mapping[str, str], watch: _Watch, copy: Copy | None
    ) -> Answer | Trouble:
        polite = self._politeness
        with ExitStack() as stack, self._session.get(
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
            copied = copy if response.status_code == 200 else None
            limit = copied.max_bytes if copied else polite.max_bytes
            if announced.isdecimal() and int(announced) > limit:
                return Trouble("too_large", f"{announced} bytes announced")
            body = io.BytesIO()
            into = stack.enter_context(copied.path.open("wb")) if copied else body
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                watch.nbytes += len(chunk)
                try:
                    into.write(chunk)
                except OSError as error:
                    raise _DiskError(error) from error
                now = time.monotonic()
                watch.pace.received(len(chunk), now)
                late = watch.pace.late(now)
                if late:
                    return Trouble(late, f"{watch.nbytes} bytes by then")
                if watch.nbytes > limit:
                    return Trouble("too_large", f"over {limit} bytes")
            if watch.cut_as:
                return Trouble(watch.cut_as, f"{watch.nbytes} bytes by then")
            lower = {name.lower(): value for name, value in response.headers.items()}
            lower.pop("content-encoding", None)  # undone by now
            return Answer(url, response.status_code, lower, body.getvalue())


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

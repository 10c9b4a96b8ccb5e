"""One request by requests: for pages, robots.txt and whatever a crawler reads one at a time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.addresses import is_public, resolve
from pipeline.exchange import Answer, Trouble
from pipeline.politeness import Politeness

_CHUNK = 1 << 16


class _PrivateAddressError(OSError):
    """The name leads to an address that is not on the public internet."""


class _Deadline(threading.local):
    """The socket of the request under way in this thread, for the watchdog."""

    socket: socket.socket | None = None


_current = _Deadline()


class _GuardedHTTP(HTTPConnection):
    """A connection to public addresses alone. The peer is checked before a byte is sent."""

    allow_private = False

    def _new_conn(self) -> socket.socket:
        return _guarded(self, super()._new_conn, self.allow_private)


class _GuardedHTTPS(HTTPSConnection):
    allow_private = False

    def _new_conn(self) -> socket.socket:
        return _guarded(self, super()._new_conn, self.allow_private)


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
    _current.socket = sock
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


class RequestsTransport:
    """Requests over kept-alive connections; usable from several threads."""

    def __init__(self, politeness: Politeness) -> None:
        self._politeness = politeness
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        adapter = _Adapter(politeness.allow_private, size=politeness.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def request(self, url: str, headers: Mapping[str, str]) -> Answer | Trouble:
        """GET `url` once."""
        polite = self._politeness
        _current.socket = None
        got = bytearray()
        deadline = time.monotonic() + polite.total_timeout
        try:
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
                lower = {name.lower(): value for name, value in response.headers.items()}
                while chunk := response.raw.read1(_CHUNK, decode_content=True):
                    got += chunk
                    if len(got) > polite.max_bytes:
                        return Trouble("too_large", f"over {polite.max_bytes} bytes")
                    if time.monotonic() > deadline:
                        return Trouble("total_timeout", f"{len(got)} bytes by then")
                return Answer(url, response.status_code, lower, bytes(got))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return _trouble(error, len(got))


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


def _trouble(error: Exception, received: int) -> Trouble:
    """The kind of trouble that an exception of requests and urllib3 means."""
    causes = _causes(error)
    detail = str(causes[-1]) or type(causes[-1]).__name__

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    for kind, types in _KINDS:
        if has(*types):
            if kind == "connection_lost" and received:
                return Trouble("truncated", f"{received} bytes, then {detail}")
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

"""Connections for requests that only reach public addresses and can be shut down by a timer."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import threading
import time
from typing import Any

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.web.politeness import Politeness
from pipeline.web.transfers import MAX_INTERIM, TransferTimeouts

_NOT_PUBLIC_4 = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    "168.63.129.16/32",  # the host of a virtual machine at Azure
)))  # fmt: skip
"""IANA's special-purpose address registry (RFC 6890), and multicast."""

_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
"""Global unicast. It excludes site-local, unique local and multicast addresses, and the forms that
embed an IPv4 address (::/80 and 64:ff9b:1::/48)."""

_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


class PrivateAddressError(OSError):
    """The name resolves to an address that is not on the public internet."""


class Watch:
    """Shuts down the socket of a request when one of its timeouts expires.

    The timeouts of requests apply to each read, so a slow drip never exceeds them.
    """

    def __init__(self) -> None:
        self.timeout_kind: str | None = None
        self.nbytes = 0
        self.timeouts: TransferTimeouts
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timers: list[threading.Timer] = []

    def start(self, politeness: Politeness) -> None:
        """Start the timers of the request."""
        self.timeouts = TransferTimeouts(politeness, time.monotonic())
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

    def set_socket(self, sock: socket.socket | None) -> None:
        """Set the socket that the request uses."""
        with self._lock:
            self._socket = sock

    def waits_for(self) -> str:
        """Describe what the request waits for."""
        if self._socket is None:
            return "a connection (looking up its name, connecting)"
        if not self.timeouts.has_started:
            return "the beginning of a response"
        return "the rest of a page"

    def _look(self) -> None:
        kind = self.timeouts.timeout_kind(time.monotonic() + 0.001)
        with self._lock:
            if kind and self._socket is not None:
                self.timeout_kind = kind
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which clears TLS state that the reader still uses.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Current(threading.local):
    """The watch of the request in flight in this thread."""

    watch: Watch | None = None


current = _Current()


def _watch_socket(sock: Any) -> None:
    if current.watch is not None:
        current.watch.set_socket(sock)


class _Heads:
    """Reads header lines of at most `MAX_INTERIM` responses from a file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._ended = 0

    def readline(self, limit: int = -1) -> bytes:
        if self._ended == MAX_INTERIM:
            raise http.client.HTTPException(f"more than {MAX_INTERIM} interim responses")
        line: bytes = self._file.readline(limit)
        self._ended += line in (b"\r\n", b"\n")
        return line

    def close(self) -> None:
        self._file.close()


class _FinalResponse(http.client.HTTPResponse):
    """Skips fewer than `MAX_INTERIM` interim responses; http.client only skips status 100."""

    def begin(self) -> None:
        whole, heads = self.fp, _Heads(self.fp)
        self.fp = heads  # type: ignore[assignment]
        try:
            super().begin()
            while 100 <= self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.headers = None  # type: ignore[assignment]  # else begin() does nothing
                super().begin()
        finally:
            if self.fp is not None:  # None after an error
                self.fp = whole


class _GuardedHTTP(HTTPConnection):
    """Connects only to public addresses. The peer is checked before anything is sent."""

    allow_private = False
    response_class = _FinalResponse
    _socket: socket.socket | None = None

    @property
    def sock(self) -> socket.socket | None:
        return self._socket

    @sock.setter
    def sock(self, new: socket.socket | None) -> None:
        """Set the connected socket, the same one wrapped for TLS, or None when it is closed."""
        is_connected, self._socket = self._socket is not None, new
        if new is None:
            return
        if not self.allow_private and not is_connected:
            peer = str(new.getpeername()[0])
            if not is_public(peer):
                self.close()
                raise PrivateAddressError(_private(self.host, peer))
        _watch_socket(new)

    def connect(self) -> None:
        if not self.allow_private:
            _check_addresses(self.host, self.port or 0)
        super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        _watch_socket(self.sock)
        return super().getresponse()


class _GuardedHTTPS(_GuardedHTTP, HTTPSConnection):
    """`_GuardedHTTP` over TLS."""


def _private(host: str, address: str) -> str:
    leads = "" if host == address else f"leads to {address}, "
    return f"{host}: {leads}on this machine or network; politeness.allow_private admits it"


def _check_addresses(host: str, port: int) -> None:
    try:
        addresses = resolve(host, port)
    except OSError:
        return  # urllib3 reports it
    for address in addresses:
        if not is_public(address):  # even if others are public
            raise PrivateAddressError(_private(host, address))


class GuardedAdapter(HTTPAdapter):
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
    """Return the file of certificate authorities: $SSL_CERT_FILE, or certifi's."""
    return os.environ.get("SSL_CERT_FILE") or certifi.where()


class GuardedSession(requests.Session):
    """Ignores Location: requests parses it even without following, and may raise."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


def is_public(address: str) -> bool:
    """Return True if an IP address belongs to the public internet.

    Loopback, private, link-local (cloud metadata), multicast and reserved addresses do not, nor do
    IPv6 addresses that embed one of these.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped or ip in _NAT64:
        return is_public(str(low))
    if ip.sixtofour:
        return is_public(str(ip.sixtofour))
    if (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(str(low)):
        return False
    return ip in _GLOBAL_6 and not any(ip in network for network in _NOT_PUBLIC_6)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host`.

    Raises:
        OSError: the name is unknown or invalid (socket.gaierror).
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # raised by the codec "idna"
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))

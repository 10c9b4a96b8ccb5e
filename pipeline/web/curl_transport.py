"""Many requests at once by libcurl, on one thread: for images.

A GET of a 200 kB image costs a tenth of the CPU of the usual client's, and nothing here waits: a
slow host costs a socket and no thread.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pycurl

from pipeline.credentials import split_user
from pipeline.web.addresses import is_public
from pipeline.web.failures import describe_internal
from pipeline.web.headers import (
    MAX_ERROR_BODY,
    MAX_HEAD,
    MAX_INTERIM,
    parse_head,
    refused_head,
    sendable,
)
from pipeline.web.host_headers import request_headers
from pipeline.web.politeness import Politeness
from pipeline.web.requests_transport import certificates
from pipeline.web.responses import RawResponse, RequestFailure
from pipeline.web.resume import timed_out
from pipeline.web.timeouts import TINY_PIECES, TransferTimeouts

_E_TOO_LARGE = 100
"""CURLE_TOO_LARGE, for which pycurl has no name."""
_BUFFER = 64 * 1024
_TICK = 0.1
"""Seconds between two looks at the pace of the transfers."""


class _Transfer:
    """One request under way. A body that is longer than `limit` is refused, or of a policy file
    (`may_cut`) no more than that is read."""

    def __init__(
        self, token: Any, url: str, pace: TransferTimeouts, limit: int, may_cut: bool
    ) -> None:
        self.token = token
        self.url = url
        self.pace = pace
        self.limit = limit
        self.may_cut = may_cut
        self._lines: list[bytes] = []
        self._head_bytes = 0
        self._interim = 0
        self._body = bytearray()
        self.received = 0
        self.private = ""
        self.is_cut = False
        self.refused: RequestFailure | None = None
        self.opened: list[socket.socket] = []

    def on_header(self, line: bytes) -> int | None:
        """Only kept here; `head` reads the lines when the transfer is over."""
        self._head_bytes += len(line)
        if self._head_bytes > MAX_HEAD:
            self.refused = RequestFailure("protocol", f"more than {MAX_HEAD} bytes of headers")
            return -1
        self._lines.append(line)
        if not line.strip(b"\r\n"):
            self.pace.received(0, time.monotonic())
            return self._look_at_head()
        return None

    def _look_at_head(self) -> int | None:
        """End the transfer where its head alone says that it leads to nothing."""
        try:
            status, headers = self.head()
        except ValueError as error:
            self.refused = RequestFailure("protocol", str(error))
            return -1
        if 100 <= status < 200 and status != 101:  # the answer that counts is yet to come
            self._lines.clear()
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self.refused = RequestFailure(
                    "protocol", f"more than {MAX_INTERIM} interim answers"
                )
                return -1
        elif not 200 <= status < 300:  # of an error, the body says nothing
            self.limit, self.may_cut = min(self.limit, MAX_ERROR_BODY), True
        else:
            wrong = refused_head(headers, None if self.may_cut else self.limit)
            if wrong is not None:
                self.refused = RequestFailure(*wrong, status=status)
                return -1
        return None

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers.

        Raises:
            ValueError: there is no status line.
        """
        return parse_head(self._lines)

    def on_body(self, data: bytes) -> int | None:
        self.pace.received(len(data), time.monotonic())
        self._body += data
        self.received += len(data)
        if self.received > self.limit:
            self.is_cut = True
            return 0
        if self.pace.has_tiny_pieces:
            self.refused = RequestFailure("protocol", TINY_PIECES)
            return 0
        return None

    def body(self) -> bytes:
        """What came in so far, `limit` bytes at most."""
        return bytes(memoryview(self._body)[: self.limit])

    def drop_body(self) -> None:
        """Free the memory: the idle handle of a transfer that ended still refers to it."""
        self._body = bytearray()

    def waits_for(self) -> str:
        """What the request waits for."""
        if self.pace.has_started:
            return f"the rest of an image ({self.received / 1e6:.1f} MB so far)"
        return "a connection or the beginning of an answer"

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """libcurl asks for a socket to `address`: none for one that is not public."""
        family, kind, protocol, where = address
        peer = str(where[0])
        if not is_public(peer):
            self.private = peer
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError:  # no IPv6 on this machine, or too many open files
            return pycurl.SOCKET_BAD
        self.opened.append(opened)  # pycurl goes on with a duplicate
        return opened


class CurlTransport:
    """Requests under way. One thread; `poll` is where everything happens."""

    def __init__(self, politeness: Politeness) -> None:
        self._politeness = politeness
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 256)
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakee = socket.socketpair()
        self._waker.setblocking(False)
        self._wakee.setblocking(False)
        self._selector.register(self._wakee, selectors.EVENT_READ)
        self._timer: float | None = None
        self._ticked = 0.0
        self._idle: list[pycurl.Curl] = []
        self._active: dict[pycurl.Curl, _Transfer] = {}

    def __len__(self) -> int:
        return len(self._active)

    @property
    def received(self) -> int:
        """Bytes held for transfers under way."""
        return sum(transfer.received for transfer in self._active.values())

    def waits(self, now: float) -> Iterator[tuple[float, Any, str]]:
        """Of each transfer the seconds since its start, its token and what it waits for."""
        for transfer in self._active.values():
            yield transfer.pace.elapsed(now), transfer.token, transfer.waits_for()

    def close(self) -> None:
        for handle in list(self._active):
            self._retire(handle)
        for handle in self._idle:
            handle.close()
        self._idle.clear()
        self._multi.close()
        self._selector.close()
        self._waker.close()
        self._wakee.close()

    def wake(self) -> None:
        """End a `poll` that waits. From any thread."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            pass  # enough wakes are under way
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def start(
        self, token: Any, url: str, headers: Mapping[str, str], policy_bytes: int | None = None
    ) -> None:
        """Begin a GET; `poll` will hand out `token` with what came of it.

        Args:
            url: as `urls.request_url` makes it.
            policy_bytes: of a policy file: no more of it is read.
        """
        handle = self._idle.pop() if self._idle else self._new_handle()
        pace = TransferTimeouts(self._politeness, time.monotonic())
        limit = policy_bytes or self._politeness.max_bytes
        transfer = _Transfer(token, url, pace, limit, policy_bytes is not None)
        bare, _ = split_user(url)
        handle.setopt(pycurl.URL, bare)
        lines = {
            **self._politeness.headers,
            **sendable(headers),
            **request_headers(self._politeness, url),
        }
        if lines:
            # As bytes, which a validator from outside has to come back in.
            encoded = [f"{name}: {value}".encode("latin-1") for name, value in lines.items()]
            handle.setopt(pycurl.HTTPHEADER, encoded)
        else:
            # An empty list would leave those of the handle's last request.
            handle.unsetopt(pycurl.HTTPHEADER)
        handle.setopt(pycurl.HEADERFUNCTION, transfer.on_header)
        handle.setopt(pycurl.WRITEFUNCTION, transfer.on_body)
        if not self._politeness.allow_private:
            handle.setopt(pycurl.OPENSOCKETFUNCTION, transfer.open_socket)
        self._active[handle] = transfer
        self._multi.add_handle(handle)

    def poll(self, timeout: float) -> list[tuple[Any, RawResponse | RequestFailure]]:
        """What ended; waits for at most `timeout` seconds if nothing did."""
        now = time.monotonic()
        until = timeout if self._timer is None else min(timeout, max(0.0, self._timer - now))
        for key, mask in self._selector.select(min(until, _TICK) if self._active else until):
            if key.fileobj is self._wakee:
                self._drain_wakes()
                continue
            events = (pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0) | (
                pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
            )
            self._multi.socket_action(key.fd, events)
        now = time.monotonic()
        if self._timer is not None and now >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        done = self._finished()
        if now - self._ticked >= _TICK:
            self._ticked = now
            done += self._overdue(now)
        return done

    def _new_handle(self) -> pycurl.Curl:
        polite = self._politeness
        handle = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PROXY, ""),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.USERAGENT, polite.full_user_agent),
            (pycurl.CAINFO, certificates()),
            (pycurl.BUFFERSIZE, _BUFFER),
            (pycurl.CONNECTTIMEOUT_MS, int(polite.connect_timeout * 1000)),
            (pycurl.HTTP_TRANSFER_DECODING, 1),
            (pycurl.TCP_NODELAY, 1),
        ):
            handle.setopt(option, value)
        return handle

    def _drain_wakes(self) -> None:
        try:
            while self._wakee.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        mask = (selectors.EVENT_READ if event & pycurl.POLL_IN else 0) | (
            selectors.EVENT_WRITE if event & pycurl.POLL_OUT else 0
        )
        known = fd in self._selector.get_map()
        if event == pycurl.POLL_REMOVE or not mask:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, mask)
        else:
            self._selector.register(fd, mask)

    def _on_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _finished(self) -> list[tuple[Any, RawResponse | RequestFailure]]:
        done: list[tuple[Any, RawResponse | RequestFailure]] = []
        while True:
            left, good, bad = self._multi.info_read()
            ended = [(handle, pycurl.E_OK, "") for handle in good] + bad
            for handle, code, message in ended:
                os_error = handle.getinfo(pycurl.OS_ERRNO)
                transfer = self._retire(handle)
                done.append((transfer.token, _outcome(transfer, code, message, os_error)))
                transfer.drop_body()
            if not left:
                return done

    def _overdue(self, now: float) -> list[tuple[Any, RawResponse | RequestFailure]]:
        late: list[tuple[Any, RawResponse | RequestFailure]] = []
        for handle, transfer in list(self._active.items()):
            kind = transfer.pace.timeout_kind(now)
            if kind:
                self._retire(handle)
                trouble = timed_out(kind, transfer.received, _partial(transfer))
                late.append((transfer.token, trouble))
                transfer.drop_body()
        return late

    def _retire(self, handle: pycurl.Curl) -> _Transfer:
        transfer = self._active.pop(handle)
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        for opened in transfer.opened:
            opened.close()
        return transfer


def _outcome(
    transfer: _Transfer, code: int, message: str, os_error: int
) -> RawResponse | RequestFailure:
    """What a transfer that ended came to. Whatever it is, the others go on."""
    try:
        if code == pycurl.E_OK and not transfer.private:
            return _answer(transfer)
        return _trouble(transfer, code, message, os_error)
    except ValueError as error:  # of the status line
        return RequestFailure("protocol", str(error))
    except Exception as error:  # noqa: BLE001 - the boundary of one answer
        return RequestFailure("internal", describe_internal(error), retries_exhausted=True)


def _answer(transfer: _Transfer) -> RawResponse:
    return RawResponse(transfer.url, *transfer.head(), transfer.body())


def _partial(transfer: _Transfer) -> RawResponse | None:
    try:
        return _answer(transfer) if transfer.received else None
    except ValueError:
        return None


_KINDS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_URL_MALFORMAT: "bad_url",
    pycurl.E_COULDNT_CONNECT: "unreachable",
    pycurl.E_OPERATION_TIMEDOUT: "connect_timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_PARTIAL_FILE: "truncated",
    pycurl.E_GOT_NOTHING: "connection_lost",
    pycurl.E_SEND_ERROR: "connection_lost",
    pycurl.E_RECV_ERROR: "connection_lost",
}
"""The kinds of libcurl's errors; any other is `protocol`."""

_DETAILS = {_E_TOO_LARGE: "a header line or a status line is too long"}
"""What libcurl's errors without a message mean."""


def _trouble(
    transfer: _Transfer, code: int, message: str, os_error: int
) -> RawResponse | RequestFailure:
    if transfer.private:
        return RequestFailure("private_address", f"{transfer.url} leads to {transfer.private}")
    if transfer.refused:
        return transfer.refused
    if transfer.is_cut:
        if transfer.may_cut:
            return _answer(transfer)
        return RequestFailure("too_large", f"over {transfer.limit} bytes")
    kind = _KINDS.get(code, "protocol")
    if kind == "unreachable" and os_error == errno.ECONNREFUSED:
        kind = "refused"
    if kind == "connection_lost" and transfer.received:
        kind = "truncated"
    detail = message or _DETAILS.get(code) or f"libcurl error {code}"
    return RequestFailure(kind, detail, partial=_partial(transfer) if kind == "truncated" else None)

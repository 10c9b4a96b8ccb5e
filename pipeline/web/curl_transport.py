"""Sends many requests at once by libcurl on one thread, for images.

A GET of a 200 kB image takes a tenth of the CPU time of the requests library, and a slow host
occupies a socket but no thread.
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
from pipeline.web.attempts import timed_out
from pipeline.web.connections import certificates
from pipeline.web.curl_transfer import Transfer, partial_response, transfer_outcome
from pipeline.web.host_headers import request_headers
from pipeline.web.politeness import Politeness
from pipeline.web.responses import RawResponse, RequestFailure
from pipeline.web.transfers import TransferTimeouts, sendable

_BUFFER = 64 * 1024
_TICK = 0.1
"""Seconds between two checks for timeouts."""


class CurlTransport:
    """Sends many requests at once; `poll` makes progress. Not thread-safe, except for `wake`."""

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
        self._active: dict[pycurl.Curl, Transfer] = {}

    def __len__(self) -> int:
        return len(self._active)

    @property
    def received(self) -> int:
        """Bytes received by the transfers in flight."""
        return sum(transfer.received for transfer in self._active.values())

    def waits(self, now: float) -> Iterator[tuple[float, Any, str]]:
        """Yield for each transfer the seconds since its start, its token and what it waits for."""
        for transfer in self._active.values():
            yield transfer.timeouts.elapsed(now), transfer.token, transfer.waits_for()

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
        """Interrupt a waiting `poll`. Safe to call from any thread."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            pass  # enough wake-ups are pending
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def start(
        self, token: Any, url: str, headers: Mapping[str, str], policy_bytes: int | None = None
    ) -> None:
        """Start a GET; `poll` returns its outcome with `token`.

        Args:
            url: normalized by `urls.request_url`.
            policy_bytes: for a policy file, the maximum number of bytes to read.
        """
        handle = self._idle.pop() if self._idle else self._new_handle()
        timeouts = TransferTimeouts(self._politeness, time.monotonic())
        limit = policy_bytes or self._politeness.max_bytes
        transfer = Transfer(token, url, timeouts, limit, policy_bytes is not None)
        bare, _ = split_user(url)
        handle.setopt(pycurl.URL, bare)
        lines = {
            **self._politeness.headers,
            **sendable(headers),
            **request_headers(self._politeness, url),
        }
        if lines:
            # As bytes, so that a server's validator is returned byte for byte.
            encoded = [f"{name}: {value}".encode("latin-1") for name, value in lines.items()]
            handle.setopt(pycurl.HTTPHEADER, encoded)
        else:
            # An empty list would keep the headers of the handle's previous request.
            handle.unsetopt(pycurl.HTTPHEADER)
        handle.setopt(pycurl.HEADERFUNCTION, transfer.on_header)
        handle.setopt(pycurl.WRITEFUNCTION, transfer.on_body)
        if not self._politeness.allow_private:
            handle.setopt(pycurl.OPENSOCKETFUNCTION, transfer.open_socket)
        self._active[handle] = transfer
        self._multi.add_handle(handle)

    def poll(self, timeout: float) -> list[tuple[Any, RawResponse | RequestFailure]]:
        """Return the outcomes of finished transfers; wait for at most `timeout` seconds."""
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
                done.append((transfer.token, transfer_outcome(transfer, code, message, os_error)))
                transfer.drop_body()
            if not left:
                return done

    def _overdue(self, now: float) -> list[tuple[Any, RawResponse | RequestFailure]]:
        late: list[tuple[Any, RawResponse | RequestFailure]] = []
        for handle, transfer in list(self._active.items()):
            kind = transfer.timeouts.timeout_kind(now)
            if kind:
                self._retire(handle)
                failure = timed_out(kind, transfer.received, partial_response(transfer))
                late.append((transfer.token, failure))
                transfer.drop_body()
        return late

    def _retire(self, handle: pycurl.Curl) -> Transfer:
        transfer = self._active.pop(handle)
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        for opened in transfer.opened:
            opened.close()
        return transfer

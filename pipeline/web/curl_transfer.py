"""One transfer of libcurl: its callbacks and its outcome."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import pycurl

from pipeline.web.connections import is_public
from pipeline.web.failures import describe_internal
from pipeline.web.responses import RawResponse, RequestFailure
from pipeline.web.transfers import (
    MAX_ERROR_BODY,
    MAX_HEAD,
    MAX_INTERIM,
    TINY_PIECES,
    TransferTimeouts,
    parse_head,
    refused_head,
)

_E_TOO_LARGE = 100
"""CURLE_TOO_LARGE; pycurl does not define it."""


class Transfer:
    """One request in flight.

    A body longer than `limit` bytes is refused; with `may_cut` (policy files) it is truncated.
    """

    def __init__(
        self, token: Any, url: str, timeouts: TransferTimeouts, limit: int, may_cut: bool
    ) -> None:
        self.token = token
        self.url = url
        self.timeouts = timeouts
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
        """Store a header line. After the last one, return -1 to end a transfer that must fail."""
        self._head_bytes += len(line)
        if self._head_bytes > MAX_HEAD:
            self.refused = RequestFailure("protocol", f"more than {MAX_HEAD} bytes of headers")
            return -1
        self._lines.append(line)
        if not line.strip(b"\r\n"):
            self.timeouts.received(0, time.monotonic())
            return self._look_at_head()
        return None

    def _look_at_head(self) -> int | None:
        """Return -1 to end the transfer if its headers mean a failure."""
        try:
            status, headers = self.head()
        except ValueError as error:
            self.refused = RequestFailure("protocol", str(error))
            return -1
        if 100 <= status < 200 and status != 101:  # interim: the final response follows
            self._lines.clear()
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self.refused = RequestFailure(
                    "protocol", f"more than {MAX_INTERIM} interim responses"
                )
                return -1
        elif not 200 <= status < 300:  # the body of an error is not used
            self.limit, self.may_cut = min(self.limit, MAX_ERROR_BODY), True
        else:
            wrong = refused_head(headers, None if self.may_cut else self.limit)
            if wrong is not None:
                self.refused = RequestFailure(*wrong, status=status)
                return -1
        return None

    def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers.

        Raises:
            ValueError: there is no status line.
        """
        return parse_head(self._lines)

    def on_body(self, data: bytes) -> int | None:
        self.timeouts.received(len(data), time.monotonic())
        self._body += data
        self.received += len(data)
        if self.received > self.limit:
            self.is_cut = True
            return 0
        if self.timeouts.has_tiny_pieces:
            self.refused = RequestFailure("protocol", TINY_PIECES)
            return 0
        return None

    def body(self) -> bytes:
        """Return the bytes received so far, `limit` bytes at most."""
        return bytes(memoryview(self._body)[: self.limit])

    def drop_body(self) -> None:
        """Free the memory; the idle handle keeps a reference to this transfer."""
        self._body = bytearray()

    def waits_for(self) -> str:
        """Describe what the request waits for."""
        if self.timeouts.has_started:
            return f"the rest of an image ({self.received / 1e6:.1f} MB so far)"
        return "a connection or the beginning of a response"

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """Open a socket for libcurl, or refuse if `address` is not public."""
        family, kind, protocol, where = address
        peer = str(where[0])
        if not is_public(peer):
            self.private = peer
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError:  # no IPv6 on this machine, or too many open files
            return pycurl.SOCKET_BAD
        self.opened.append(opened)  # pycurl uses a duplicate
        return opened


def transfer_outcome(
    transfer: Transfer, code: int, message: str, os_error: int
) -> RawResponse | RequestFailure:
    """Return the outcome of a transfer that ended; never raises."""
    try:
        if code == pycurl.E_OK and not transfer.private:
            return _received_response(transfer)
        return _failure(transfer, code, message, os_error)
    except ValueError as error:  # the status line is invalid
        return RequestFailure("protocol", str(error))
    except Exception as error:  # noqa: BLE001 - errors of one response are caught here
        return RequestFailure("internal", describe_internal(error), retries_exhausted=True)


def _received_response(transfer: Transfer) -> RawResponse:
    return RawResponse(transfer.url, *transfer.head(), transfer.body())


def partial_response(transfer: Transfer) -> RawResponse | None:
    try:
        return _received_response(transfer) if transfer.received else None
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
"""Failure kinds of libcurl errors; all others are `protocol`."""

_DETAILS = {_E_TOO_LARGE: "a header line or a status line is too long"}
"""Messages for errors for which libcurl has none."""


def _failure(
    transfer: Transfer, code: int, message: str, os_error: int
) -> RawResponse | RequestFailure:
    if transfer.private:
        return RequestFailure("private_address", f"{transfer.url} leads to {transfer.private}")
    if transfer.refused:
        return transfer.refused
    if transfer.is_cut:
        if transfer.may_cut:
            return _received_response(transfer)
        return RequestFailure("too_large", f"over {transfer.limit} bytes")
    kind = _KINDS.get(code, "protocol")
    if kind == "unreachable" and os_error == errno.ECONNREFUSED:
        kind = "refused"
    if kind == "connection_lost" and transfer.received:
        kind = "truncated"
    detail = message or _DETAILS.get(code) or f"libcurl error {code}"
    return RequestFailure(
        kind, detail, partial=partial_response(transfer) if kind == "truncated" else None
    )

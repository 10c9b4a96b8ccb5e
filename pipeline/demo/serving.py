"""An HTTP/1.1 file server for loopback: keep-alive, validators, ranges, HEAD."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 20.0

_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'"
)
"""The Content-Security-Policy of every response."""


@dataclass(frozen=True)
class StaticResponse:
    """The content of a path: status, media type, body, and modification time (Unix time)."""

    status: HTTPStatus
    media_type: str
    body: bytes
    modified: float

    @property
    def etag(self) -> str:
        """A strong validator of the body."""
        return '"' + hashlib.sha256(self.body).hexdigest()[:24] + '"'


def requested_range(header: str, length: int) -> tuple[int, int] | None:
    """Return (first, last) byte of a single-range header; None if it is not one.

    Raises ValueError if the range lies outside of the ``length`` bytes (RFC 9110, 14.1.2).
    """
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    numbers = [part for part in (first, last) if part]
    if unit.strip() != "bytes" or not dash or not numbers:
        return None
    if not all(part.isascii() and part.isdigit() for part in numbers):
        return None
    if not first:
        start, stop = max(0, length - int(last)), length - 1
    else:
        start, stop = int(first), min(int(last), length - 1) if last else length - 1
        if last and int(last) < start:
            return None
    if start > stop:
        raise ValueError(f"range {spec} lies outside of {length} bytes")
    return start, stop


class LoopbackServer(ThreadingHTTPServer):
    """A threading server on 127.0.0.1 whose responses are a function of the unescaped path.

    ``requests`` lists the targets (path and query as sent) of all requests so far.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, answer: Callable[[str], StaticResponse]) -> None:
        super().__init__((LOOPBACK, port), Handler, bind_and_activate=False)
        self.answer = answer
        self.requests: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close the connection early."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "ShellCabinet/1"
    timeout = IDLE_SECONDS
    # Headers and body are sent in separate writes; without this the second would wait for the
    # first.
    disable_nagle_algorithm = True
    server: LoopbackServer

    def do_GET(self) -> None:
        """Answer with headers and body."""
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers that GET would have."""
        self._reply(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: requests are recorded on the server."""

    def _fresh(self, answer: StaticResponse) -> bool:
        """Return whether the client's copy is current; its ETag takes precedence over its date."""
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
            return "*" in known or answer.etag in known
        since = self.headers.get("If-Modified-Since")
        if since is None:
            return False
        try:
            return int(answer.modified) <= parsedate_to_datetime(since).timestamp()
        except ValueError:
            return False

    def _part(self, answer: StaticResponse) -> tuple[int, int] | None:
        """Return the requested range, unless it is of another version of the body."""
        header = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if header is None or self.command != "GET":
            return None
        if condition not in (None, answer.etag, formatdate(answer.modified, usegmt=True)):
            return None
        return requested_range(header, len(answer.body))

    def _reply(self, with_body: bool) -> None:
        self.server.requests.append(self.path)
        answer = self.server.answer(unquote(urlsplit(self.path).path).lstrip("/"))
        status, body = answer.status, answer.body
        extra: dict[str, str] = {}
        if status == HTTPStatus.OK:
            extra = {
                "ETag": answer.etag,
                "Last-Modified": formatdate(answer.modified, usegmt=True),
                "Accept-Ranges": "bytes",
                "Cache-Control": "no-cache",
            }
            try:
                part = self._part(answer)
            except ValueError:
                status, body = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b""
                extra = {"Content-Range": f"bytes */{len(answer.body)}"}
            else:
                if self._fresh(answer):
                    status, body = HTTPStatus.NOT_MODIFIED, b""
                elif part is not None:
                    status, body = HTTPStatus.PARTIAL_CONTENT, body[part[0] : part[1] + 1]
                    extra["Content-Range"] = f"bytes {part[0]}-{part[1]}/{len(answer.body)}"
        extra["Content-Security-Policy"] = _POLICY
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

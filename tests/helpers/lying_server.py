"""A server of one shard that lies, in the way that the first folder of the URL names."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from tests.helpers.static_site import BackgroundServer

PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>".ljust(2000)
FAR = 10**17
ENDLESS = 2000


class LyingServer(BackgroundServer):
    """Serves `data` on loopback as `/LIE/a.tar`, see `LIES`. Lies that begin with `fetch ` are told
    only about the whole file, not about ranges that end within it. `asked` counts the requests."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: Counter[str] = Counter()
        super().__init__(type("Handler", (Handler,), {"server_of_lies": self}))

    def url_of(self, lie: str) -> str:
        return f"{self.url}/{lie.replace(' ', '-')}/a.tar"


class Handler(BaseHTTPRequestHandler):
    server_of_lies: LyingServer
    protocol_version = "HTTP/1.1"
    close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        lie = self.path.split("/")[1].replace("-", " ")
        self.server_of_lies.asked[lie] += 1
        asked = self.headers.get("Range", "")
        self.data = self.server_of_lies.data
        self.size = len(self.data)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        self.first = int(first or 0)
        self.end = min(int(last) + 1 if last else self.size, self.size)
        self.part = self.data[self.first : self.end]
        self.is_range = bool(asked)
        self.number = self.server_of_lies.asked[lie]
        is_honest = lie.startswith("fetch ") and last
        with contextlib.suppress(OSError):
            (honest if is_honest else LIES[lie.removeprefix("fetch ")])(self)
        self.close_connection = True

    def answer(self, status: int, body: bytes = b"", length: int = -1, **headers: str) -> None:
        self.send_response(status)
        headers = {"Content_Length": f"{len(body) if length < 0 else length}", **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def answer_part(self, body: bytes | None = None, size: int | str = 0, **headers: str) -> None:
        """Answer with the part that was asked for, and another `body` or `size` of the file."""
        body = self.part if body is None else body
        stated = f"bytes {self.first}-{self.first + len(self.part) - 1}/{size or self.size}"
        headers = ({"Content_Range": stated} if self.is_range else {}) | headers
        self.answer(206 if self.is_range else 200, body, len(self.part), **headers)

    def answer_all(self, body: bytes, length: int = -1, **headers: str) -> None:
        self.answer(200, body, length, **headers)

    def drip(self, data: bytes) -> None:
        for place in range(len(data)):
            self.wfile.write(data[place : place + 1])
            time.sleep(0.02)


def honest(request: Handler) -> None:
    request.answer_part()


def _endless(request: Handler) -> None:
    request.answer_all(request.data, FAR)
    for _ in range(ENDLESS):
        request.wfile.write(bytes(1 << 16))


def _headers_without_end(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(ENDLESS):
        request.wfile.write(b"X-%d: %s\r\n" % (number, bytes(60_000).replace(b"\0", b"x")))


def _drip_headers(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    request.drip(bytes(500).replace(b"\0", b"x"))


def _drip_body(request: Handler) -> None:
    request.answer_part(b"")
    request.drip(request.part[:500])


def _chunked(request: Handler) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"zz\r\nabc")


def _page_later(request: Handler) -> None:
    if request.number > 3:
        request.answer_all(PAGE)
    else:
        request.answer_part()


def _rewritten(request: Handler) -> None:
    request.answer_part(request.part[: max(1, len(request.part) // 2)], ETag=f'"{request.number}"')


LIES: dict[str, Callable[[Handler], None]] = {
    "honest": honest,
    "ranges ignored": lambda it: it.answer_all(it.data),
    "another ETag each time": lambda it: it.answer_part(ETag=f'"{it.number}"'),
    "more than asked for": lambda it: it.answer_part(it.part + bytes(1 << 20)),
    "too long": lambda it: it.answer_all(it.data, it.size + 1000),
    "too short": lambda it: it.answer_all(it.data[: it.size // 2], it.size // 2),
    "cut": lambda it: it.answer_all(it.data[: it.size // 2], it.size),
    "no body": lambda it: it.answer_part(b""),
    "another range": lambda it: it.answer_part(
        Content_Range=f"bytes {it.first + 512}-{it.end + 511}/{it.size}"
    ),
    "no range": lambda it: it.answer(206, it.part),
    "bytes of another range": lambda it: it.answer_part(
        it.data[512 * bool(it.first) + it.first :][: len(it.part)]
    ),
    "another size each time": lambda it: it.answer_part(size=it.size + it.number),
    "no size": lambda it: it.answer_part(size="*"),
    "a huge size": lambda it: it.answer_part(size=FAR),
    "an endless file": _endless,
    "headers without end": _headers_without_end,
    "headers in drops": _drip_headers,
    "a body in drops": _drip_body,
    "a redirect to itself": lambda it: it.answer(302, Location=it.path),
    "a redirect to a file": lambda it: it.answer(302, Location="file:///etc/passwd"),
    "a redirect to nowhere": lambda it: it.answer(302, Location="http://[bad"),
    "a page": lambda it: it.answer_all(PAGE, Content_Type="text/html"),
    "a page later": _page_later,
    "compressed": lambda it: it.answer_all(gzip.compress(it.data), Content_Encoding="gzip"),
    "empty": lambda it: it.answer_all(b""),
    "no content": lambda it: it.answer(204),
    "beyond the end": lambda it: it.answer(416),
    "a length of words": lambda it: it.answer_all(it.data, Content_Length="many"),
    "broken chunks": _chunked,
    "rewritten": _rewritten,
    "busy": lambda it: it.answer(503) if it.number % 2 else it.answer_part(),
    "hung up": lambda it: None,
}
"""What each server does, by a name in words."""

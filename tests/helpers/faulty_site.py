"""A site on loopback that misbehaves in every way the web does, and knows what it did.

`ROWS` is the table: each row a path, what it serves, and the failure kind that must come of it
(None where the image must be had). The server speaks raw bytes, so that it can lie about them.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import socket
import socketserver
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

PATIENCE = 8.0
"""Seconds after which the server itself lets go of a client it keeps waiting."""


@cache
def picture(seed: int, kind: str = "JPEG", size: tuple[int, int] = (96, 72)) -> bytes:
    """The bytes of an image that is like no other seed's."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    return encoded(image, kind)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def page(title: str, body: str = "") -> bytes:
    head = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head>"
    return f"{head}<body>{body}</body></html>".encode()


DRIVE_QUOTA = page(
    "Google Drive - Quota exceeded",
    "<p>Sorry, you can't view or download this file at this time. Too many users have viewed or"
    " downloaded this file recently.</p>",
)
DRIVE_VIRUS = page(
    "Google Drive - Virus scan warning",
    "<p>Google Drive can't scan this file for viruses.</p><p>x.jpg (120M) is too large for Google"
    " to scan for viruses. Would you still like to download this file?</p>",
)
DROPBOX_QUOTA = page(
    "Dropbox - 429", "<p>This account's links are generating too much traffic.</p>"
)


@dataclass
class Request:
    """One request as the server sees it: `count` is how often the path was asked for before."""

    path: str
    headers: dict[str, str]
    count: int
    sock: socket.socket
    site: FaultySite

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(
        self, body: bytes = b"", status: str = "200 OK", length: int | None = None,
        type_: str = "image/jpeg", **headers: str,
    ) -> None:  # fmt: skip
        """A whole answer; `length` lies about the body's."""
        lines = [f"HTTP/1.1 {status}"]
        if type_:
            lines.append(f"Content-Type: {type_}")
        if length != -1:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def hang(self, seconds: float = PATIENCE) -> None:
        """Keep the client waiting until it goes away."""
        self.sock.settimeout(seconds)
        with contextlib.suppress(OSError):
            self.sock.recv(1)

    def hang_up(self) -> None:
        self.site.closing.add(self.sock)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def drip(self, data: bytes, pause: float, step: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        for start in range(0, len(data), step):
            if time.monotonic() > end:
                return
            self.send(data[start : start + step])
            time.sleep(pause)


Behaviour = Callable[[Request], None]
GOOD = picture(1)
BIG = picture(2, size=(600, 450))


def serve(body: bytes, **options: str) -> Behaviour:
    return lambda request: request.answer(body, **options)  # type: ignore[arg-type]


def status(line: str, **headers: str) -> Behaviour:
    return lambda request: request.answer(page(line), status=line, type_="text/html", **headers)


def redirect(target: str, line: str = "302 Found") -> Behaviour:
    return lambda request: request.answer(b"", status=line, Location=target)


def first(times: int, bad: Behaviour, good: Behaviour | None = None) -> Behaviour:
    """`bad` for the first requests, then a good image."""

    def behave(request: Request) -> None:
        (bad if request.count < times else good or serve(GOOD))(request)

    return behave


def _break_off(request: Request) -> None:
    request.answer(BIG[: len(BIG) // 2], length=len(BIG))
    request.hang_up()


def _stall(request: Request) -> None:
    request.answer(BIG[: len(BIG) // 2], length=len(BIG))
    request.hang()
    request.hang_up()


def _drip_body(request: Request) -> None:
    request.answer(b"", length=len(BIG))
    request.drip(BIG, 0.02)
    request.hang_up()


def _trickle(request: Request) -> None:
    """Fast enough for ever, done never."""
    request.answer(b"", length=1 << 20)
    request.drip(bytes(1 << 20), 0.02, 400)
    request.hang_up()


def _drip_head(request: Request) -> None:
    request.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 4000, 0.02)
    request.hang_up()


def _resumable(request: Request, *, etag: str = '"v1"', wrong: bool = False) -> None:
    """Breaks off twice, and goes on where Range says, if If-Range names this version."""
    asked = request.headers.get("range", "")
    matches = request.headers.get("if-range") == '"v1"'
    if asked and matches:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        rest = BIG[start:]
        shown = start + 7 if wrong else start
        piece = rest[: len(rest) // 2] if request.count == 1 else rest
        request.answer(
            piece, status="206 Partial Content", length=len(rest), ETag=etag,
            Content_Range=f"bytes {shown}-{len(BIG) - 1}/{len(BIG)}",
        )  # fmt: skip
        if len(piece) < len(rest):
            request.hang_up()
    elif request.count == 0:
        request.answer(BIG[: len(BIG) // 2], length=len(BIG), ETag=etag, Accept_Ranges="bytes")
        request.hang_up()
    else:
        request.answer(BIG, ETag=etag)


def _changed(request: Request) -> None:
    """Breaks off, and is another picture when asked again: If-Range does not match."""
    if request.count == 0:
        request.answer(picture(3, size=(600, 450))[:9000], length=60000, ETag='"old"')
        request.hang_up()
    else:
        assert request.headers.get("if-range") == '"old"', request.headers
        request.answer(BIG, ETag='"v1"')


def _no_range(request: Request) -> None:
    if "range" in request.headers:
        request.answer(b"", status="416 Range Not Satisfiable")
    elif request.count == 0:
        request.answer(BIG[:5000], length=len(BIG), ETag='"v1"')
        request.hang_up()
    else:
        request.answer(BIG)


def _bad_chunk(request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n" + GOOD[:256])
    request.send(b"\r\nZZZZ\r\n")
    request.hang_up()


def _chunked(request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(GOOD), 700):
        piece = GOOD[start : start + 700]
        request.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    request.send(b"0\r\n\r\n")


def _without_length(body: bytes) -> Behaviour:
    def behave(request: Request) -> None:
        request.answer(body, length=-1, Connection="close")
        request.hang_up()

    return behave


def _endless(request: Request) -> None:
    request.answer(b"\xff\xd8\xff", length=-1, Connection="close")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        request.send(bytes(1 << 16))


def _endless_redirect(request: Request) -> None:
    request.answer(b"", status="302 Found", Location=f"/endless-redirect?n={time.monotonic_ns()}")


def _retry_after_date(request: Request) -> None:
    date = datetime.now(UTC) + timedelta(seconds=2)
    request.answer(b"", status="503 Busy", Retry_After=format_datetime(date, usegmt=True))


@dataclass(frozen=True)
class Row:
    """One misbehaviour: `kind` of the failure it must end in, None where the image must be had;
    `attempts` how many requests that takes (None: any); `data` the bytes that must arrive."""

    path: str
    behave: Behaviour
    kind: str | None = None
    attempts: int | None = None
    data: bytes = GOOD
    tags: frozenset[str] = frozenset()


def _row(
    path: str, behave: Behaviour, kind: str | None = None, attempts: int | None = None,
    data: bytes = GOOD, tags: str = "",
) -> Row:  # fmt: skip
    return Row(f"/{path}", behave, kind, attempts, data, frozenset(tags.split()))


ATTEMPTS = 3
"""What the tests' politeness allows; a retryable failure takes so many requests."""

ROWS: tuple[Row, ...] = (
    # the status
    _row("not-found", status("404 Not Found"), "not_found", 1),
    _row("gone", status("410 Gone"), "gone", 1),
    _row("forbidden", status("403 Forbidden"), "forbidden", 1),
    _row("unauthorized", status("401 Unauthorized"), "forbidden", 1),
    _row("legal", status("451 Unavailable For Legal Reasons"), "forbidden", 1),
    _row("teapot", status("418 I'm a teapot"), "client_error", 1),
    _row("timeout-408", status("408 Request Timeout"), "request_timeout", ATTEMPTS),
    _row("error-500", status("500 Internal Server Error"), "server_error", ATTEMPTS),
    _row("error-502", status("502 Bad Gateway"), "server_error", ATTEMPTS),
    _row("unavailable", status("503 Service Unavailable"), "unavailable", ATTEMPTS),
    _row("too-many", status("429 Too Many Requests"), "rate_limited", ATTEMPTS),
    _row("strange", status("304 Not Modified"), "bad_status", 1, tags="image"),
    _row("flaky-503", first(2, status("503 Service Unavailable")), None, 3),
    _row("flaky-500", first(1, status("500 Internal Server Error")), None, 2),
    _row("later-seconds", first(1, status("429 Slow down", Retry_After="1")), None, 2),
    _row("later-date", first(1, _retry_after_date), None, 2),
    _row("much-later", status("429 Tomorrow", Retry_After="86400"), "rate_limited", 1,
         tags="rests"),
    # redirects
    _row("moved", redirect("/good.jpg", "301 Moved Permanently")),
    _row("moved-308", redirect("/good.jpg", "308 Permanent Redirect")),
    _row("loop", redirect("/loop-2"), "redirect_loop", 1),
    _row("loop-2", redirect("/loop"), "redirect_loop", 1),
    _row("endless-redirect", _endless_redirect, "redirect_loop", 1),
    _row("nowhere", status("302 Found"), "bad_redirect", 1),
    _row("to-ftp", redirect("ftp://127.0.0.1/x.jpg"), "bad_redirect", 1),
    _row("to-file", redirect("file:///etc/passwd"), "bad_redirect", 1),
    _row("to-dead", redirect("/not-found"), "not_found", 1),
    # the connection and the clock
    # (a client may ask once more by itself when a connection it kept turns out to be dead)
    _row("reset", lambda request: request.reset(), "connection_lost"),
    _row("silence", lambda request: request.hang_up(), "connection_lost"),
    _row("never", lambda request: request.hang(), "first_byte_timeout", ATTEMPTS),
    _row("drip-head", _drip_head, "first_byte_timeout", ATTEMPTS),
    _row("stall", _stall, "too_slow", ATTEMPTS),
    _row("drip-body", _drip_body, "too_slow", ATTEMPTS),
    _row("trickle", _trickle, "total_timeout", 1),
    _row("garbage", lambda r: r.send(b"\x00\x01 not http\r\n\r\n"), "protocol", ATTEMPTS,
         tags="hangs-up"),
    # the length
    _row("broken-off", _break_off, "truncated", ATTEMPTS),
    _row("bad-chunk", _bad_chunk, "truncated", ATTEMPTS),
    _row("chunked", _chunked),
    _row("resumable", _resumable, None, 3, BIG, "image"),
    _row("resumed-wrongly", lambda r: _resumable(r, wrong=True), None, 3, BIG, "image"),
    _row("changed", _changed, None, 2, BIG, "image"),
    _row("no-range", _no_range, None, None, BIG, "image"),
    _row("http-1.0", _without_length(GOOD), None, 1),
    _row("http-1.0-cut", _without_length(GOOD[: len(GOOD) // 2]), "truncated", ATTEMPTS,
         tags="image"),
    _row("short-length", lambda r: (r.answer(GOOD, length=len(GOOD) - 400), r.hang_up())[0],
         "undecodable", 1, tags="image"),
    _row("announced-too-large", lambda r: (r.answer(b"", length=1 << 30), r.hang_up())[0],
         "too_large", 1),
    _row("endless", _endless, "too_large", 1),
    # the content
    _row("page", serve(page("Nothing here")), "html_page", 1, tags="image"),
    _row("page-as-html", serve(page("Nothing here"), type_="text/html"), "html_page", 1,
         tags="image"),
    _row("drive-quota", serve(DRIVE_QUOTA), "quota_page", 1, tags="image"),
    _row("dropbox-quota", serve(DROPBOX_QUOTA), "quota_page", 1, tags="image"),
    _row("drive-virus", serve(DRIVE_VIRUS, type_="text/html"), "virus_scan_page", 1, tags="image"),
    _row("login", serve(page("Please", "<form><input name=p type='password'></form>")),
         "login_page", 1, tags="image"),
    _row("json", serve(b'{"error": "no such image"}'), "wrong_type", 1, tags="image"),
    _row("svg", serve(b"<?xml version='1.0'?><svg xmlns='x'/>"), "wrong_type", 1, tags="image"),
    _row("pdf", serve(b"%PDF-1.7 ..."), "wrong_type", 1, tags="image"),
    _row("video", serve(b"\0\0\0\x18ftypisom" + bytes(99)), "wrong_type", 1, tags="image"),
    _row("text", serve(b"gone fishing", type_="text/plain"), "wrong_type", 1, tags="image"),
    _row("empty", serve(b""), "empty", ATTEMPTS, tags="image"),
    _row("nulls", serve(bytes(5000)), "empty", ATTEMPTS, tags="image"),
    _row("noise", serve(random.Random(1).randbytes(5000)), "undecodable", 1, tags="image"),
    _row("half-jpeg", serve(BIG[: len(BIG) // 2]), "undecodable", 1, tags="image"),
    _row("jpeg-of-noise", serve(GOOD[:200] + random.Random(2).randbytes(900)), "undecodable", 1,
         tags="image"),
    _row("bomb", serve(png_header(30000, 30000)), "too_many_pixels", 1, tags="image"),
    _row("zero-size", serve(png_header(0, 40)), "zero_size", 1, tags="image"),
    _row("gif-animation", serve(animation("GIF")), "animated", 1, tags="image"),
    _row("webp-animation", serve(animation("WEBP")), "animated", 1, tags="image"),
    _row("png-animation", serve(animation("PNG")), "animated", 1, tags="image"),
    _row("gzip-bomb", serve(gzip.compress(bytes(50 << 20)), Content_Encoding="gzip"), "too_large",
         1),
    _row("gzip", serve(gzip.compress(GOOD), Content_Encoding="gzip")),
    _row("lying-type", serve(GOOD, type_="text/plain")),
    _row("lying-name.jpg", serve(picture(4, "PNG")), data=picture(4, "PNG")),
    _row("no-type", serve(picture(5, "WEBP"), type_=""), data=picture(5, "WEBP")),
    _row("1%20(6).jpg", serve(GOOD)),
    # policy
    _row("no-ai", serve(GOOD, X_Robots_Tag="noindex, noai"), "opt_out", 1),
    _row("no-image-ai", serve(GOOD, X_Robots_Tag="noimageai"), "opt_out", 1),
    _row("no-ai-for-us", serve(GOOD, X_Robots_Tag="shellgan: noai"), "opt_out", 1),
    _row("no-ai-for-others", serve(GOOD, X_Robots_Tag="otherbot: noai")),
    _row("tdm", serve(GOOD, TDM_Reservation="1"), "opt_out", 1),
    _row("tdm-open", serve(GOOD, TDM_Reservation="0")),
    _row("private/x.jpg", serve(GOOD), "robots", 0),
    # and the good ones
    _row("good.jpg", serve(GOOD)),
    _row("good.png", serve(picture(6, "PNG"), type_="image/png"), data=picture(6, "PNG")),
)  # fmt: skip

POLICY_FILES = ("/robots.txt", "/.well-known/tdmrep.json")

ROBOTS = b"User-agent: *\nDisallow: /private/\n"


@dataclass
class FaultySite:
    """The site, serving `rows` until closed; `log` holds (host, path, time) of every request."""

    rows: dict[str, Row] = field(default_factory=lambda: {row.path: row for row in ROWS})
    robots: Behaviour = field(default=serve(ROBOTS, type_="text/plain"))
    address: str = "127.0.0.1"
    log: list[tuple[str, str, float]] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    closing: set[socket.socket] = field(default_factory=set)

    def __enter__(self) -> FaultySite:
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        site = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                site._converse(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
                # Without the polite shutdown first, so that a reset is one.
                request.close()

        self._server = Server((self.address, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"

    def asked(self) -> list[str]:
        """The paths asked for, without those of policy files."""
        return [path for _, path, _ in self.log if path not in POLICY_FILES]

    def times(self, path: str) -> list[float]:
        """When a path was asked for."""
        return [when for _, asked, when in self.log if asked == path]

    def _converse(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        buffer = b""
        try:
            while sock not in self.closing:
                while b"\r\n\r\n" not in buffer:
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    buffer += piece
                    if buffer.startswith(b"\x16\x03"):
                        # TLS spoken to a plain port.
                        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                        return
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                self._respond(sock, head.decode("latin-1"))
                sock.settimeout(PATIENCE)
        except OSError:
            pass  # the client went away
        finally:
            self.closing.discard(sock)

    def _respond(self, sock: socket.socket, head: str) -> None:
        first_line, *lines = head.split("\r\n")
        path = first_line.split()[1]
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        bare = path.partition("?")[0]
        with self._lock:
            count = self._counts.get(bare, 0)
            self._counts[bare] = count + 1
            self.log.append((headers.get("host", ""), bare, time.monotonic()))
            self.seen.append({**headers, "path": bare})
        request = Request(path, headers, count, sock, self)
        if bare == "/robots.txt":
            self.robots(request)
        elif bare in self.rows:
            row = self.rows[bare]
            row.behave(request)
            if "hangs-up" in row.tags:
                request.hang_up()
        else:
            status("404 Not Found")(request)

"""Servers of shards that answer oddly: the URL is named, soon."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.errors import UserError
from tests.helpers.static_site import QuietServer
from training.streaming import schemes
from training.streaming.fetch import fetch
from training.streaming.ranges import open_ranges
from training.streaming.shards import DamagedShard

SIZE = 300_000


class Odd(http.server.BaseHTTPRequestHandler):
    sent = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            getattr(self, self.path.strip("/"))()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def superscript(self) -> None:  # digits to Python, but no number
        if "Range" in self.headers:
            self.answer(206, bytes(SIZE), Content_Range="bytes \xb2-9/10")
        else:
            self.answer(200, bytes(2000))

    def later(self) -> None:
        self.answer(429, Retry_After="\xb2")

    def much_later(self) -> None:
        self.answer(500, Retry_After="9" * 400)

    def drops(self) -> None:  # a byte an answer would take a day
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.answer(206, b"x", Content_Range=f"bytes {start}-{start}/{SIZE}")

    def junk(self) -> None:
        self.wfile.write(b"\xff\xfe no HTTP\r\n\r\n")

    def header_in_drops(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        for _ in range(100):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def endless_range(self) -> None:  # far more than was asked for
        self.answer(206, Content_Range=f"bytes 0-511/{SIZE}")
        Odd.sent = 0
        for _ in range(2000):
            self.wfile.write(bytes(1 << 16))
            Odd.sent += 1 << 16

    def body_in_drops(self) -> None:
        self.answer(206, Content_Range=f"bytes 0-511/{SIZE}", Content_Length="512")
        for _ in range(512):
            self.wfile.write(b"x")
            time.sleep(0.02)

    def file_in_drops(self) -> None:
        self.answer(200, Content_Length=f"{SIZE}")
        for _ in range(512):
            self.wfile.write(b"x")
            time.sleep(0.02)

    def whole_file(self) -> None:  # however far from its beginning the range is
        self.answer(206, bytes(SIZE), Content_Range=f"bytes 0-{8 << 20}/{8 << 20}")

    def rewritten(self) -> None:  # the connection breaks, and then it is another file
        self.half("e")

    def mirrored(self) -> None:  # by servers whose ETags differ
        self.half("e", Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")

    def half(self, name: str, **headers: str) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        stated = {"Content_Range": f"bytes {start}-{SIZE - 1}/{SIZE}"} if start else {}
        length = f"{SIZE - start}"
        headers = {"ETag": f'"{name}{start}"', "Content_Length": length, **stated, **headers}
        self.answer(206 if start else 200, bytes(SIZE // 2), **headers)

    def endless(self) -> None:
        self.answer(200)
        for _ in range(1000):
            self.wfile.write(bytes(1 << 16))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = QuietServer(("127.0.0.1", 0), Odd)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "BACKOFF", 0.001)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["loop", "superscript", "later", "drops", "junk"])
def test_an_odd_server_is_given_up_soon(url: str, path: str) -> None:
    with pytest.raises(UserError, match=rf"{url}/{path}: "):
        fetch(f"{url}/{path}", SIZE, lambda _: None, 5.0, threading.Event())


@pytest.mark.timeout(60)
def test_headers_in_drops_are_a_lost_connection(url: str) -> None:
    where, reasons = f"{url}/header_in_drops", list[str]()
    with pytest.raises(UserError, match=rf"{where}: the server did not answer in time \(tried"):
        fetch(where, SIZE, lambda _: None, 0.1, threading.Event(), reasons.append)
    assert [one.rpartition("; ")[2] for one in reasons] == [f"retry {n} of 4" for n in range(1, 5)]


def test_a_file_that_is_rewritten_meanwhile_is_not_joined(url: str) -> None:
    with pytest.raises(DamagedShard, match=rf"{url}/rewritten: changed while it was read"):
        fetch(f"{url}/rewritten", SIZE, lambda _: None, 5.0, threading.Event())
    got = bytearray()
    fetch(f"{url}/mirrored", SIZE, got.extend, 5.0, threading.Event())
    assert bytes(got) == bytes(SIZE)


def test_a_server_that_is_gone_is_named_in_plain_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.tar"
        said = rf"{url}: no server listens there \(connection refused\) \(tried 5 times\); check"
        with pytest.raises(UserError, match=said):
            open_ranges(url, 5.0)
        with pytest.raises(UserError, match=said):
            fetch(url, SIZE, lambda _: None, 5.0, threading.Event())


def test_an_endless_answer_ends_with_the_shard(url: str) -> None:
    got = bytearray()
    fetch(f"{url}/endless", SIZE, got.extend, 5.0, threading.Event())
    assert bytes(got) == bytes(SIZE)


def test_an_endless_answer_to_a_range_is_not_read_to_its_end(url: str) -> None:
    with contextlib.closing(open_ranges(f"{url}/endless_range", 5.0)) as reader:
        assert reader.pread(512, 0) == bytes(512)
    assert Odd.sent < 64 << 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["body_in_drops", "file_in_drops"])
def test_a_body_in_drops_is_a_lost_connection(url: str, path: str) -> None:
    with (
        pytest.raises(UserError, match=rf"{url}/{path}: \d+ bytes in 0 s"),
        contextlib.closing(open_ranges(f"{url}/{path}", 0.1)) as reader,
    ):
        reader.pread(4096, 0)


@pytest.mark.timeout(60)
def test_the_whole_file_is_not_read_for_a_range(url: str) -> None:
    with (
        pytest.raises(UserError, match="answered another range"),
        contextlib.closing(open_ranges(f"{url}/whole_file", 5.0)) as reader,
    ):
        reader.pread(512, 4 << 20)


@pytest.mark.parametrize(
    "location",
    ["http://[bad", "pipe:cat /etc/passwd", "simplecache::http://x/a", "nosuch://x", "http://",
     "http://a..example/a.tar", "memory://x"],
)  # fmt: skip
def test_an_odd_url_is_one_line(location: str) -> None:
    with pytest.raises(UserError, match=r"."):
        fetch(location, SIZE, lambda _: None, 5.0, threading.Event())

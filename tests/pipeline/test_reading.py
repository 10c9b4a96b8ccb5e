"""Small files from paths and URLs: bounded, whatever a server or a folder does."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from pipeline import reading
from pipeline.errors import UserError
from pipeline.reading import read_bytes, report_waiting, short_reason
from tests.helpers.static_site import QuietServer


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers each path in another odd way."""

    busy_answers = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            getattr(self, self.path.strip("/").partition("/")[0])()

    def answer(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self) -> None:
        self.answer()
        self.wfile.write(b"{}")

    def packed(self) -> None:
        self.answer(Content_Encoding="gzip")
        self.wfile.write(gzip.compress(b"{}"))

    def endless(self) -> None:
        self.answer()
        for _ in range(2000):
            self.wfile.write(bytes(1 << 16))

    def bomb(self) -> None:
        self.answer(Content_Encoding="gzip")
        self.wfile.write(gzip.compress(bytes(50_000_000)))

    def slow(self) -> None:
        self.answer()
        self.slow_body()

    def header_in_drops(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        self.slow_body()

    def slow_body(self) -> None:
        for _ in range(50):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def later(self) -> None:
        self.answer(503, Retry_After="999999999")

    def busy(self) -> None:
        Odd.busy_answers += 1
        if Odd.busy_answers < 3:
            self.answer(503)
        else:
            self.good()

    def short(self) -> None:
        self.answer(Content_Length="100")
        self.wfile.write(b"{}")

    def junk(self) -> None:
        self.wfile.write(b"\xff\xfe no HTTP\r\n\r\n")

    def nowhere(self) -> None:
        self.answer(302, Location="http://a..example/\xff")

    def missing(self) -> None:
        self.answer(404)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BACKOFF", 0.001)


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


def test_a_good_answer_is_read(url: str) -> None:
    assert read_bytes(f"{url}/good") == b"{}"
    assert read_bytes(f"{url}/packed") == b"{}"


def test_a_busy_server_is_asked_again(url: str) -> None:
    assert read_bytes(f"{url}/busy") == b"{}"
    with pytest.raises(OSError, match=r"^HTTP 503$"):
        read_bytes(f"{url}/later")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "path", ["endless", "bomb", "loop", "later", "short", "junk", "nowhere", "missing", "none"]
)
def test_an_odd_answer_is_an_error_soon(url: str, path: str) -> None:
    with pytest.raises(OSError, match=r"."):
        read_bytes(f"{url}/{path}", 1 << 20)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["slow", "header_in_drops"])
def test_an_answer_in_drops_ends(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SECONDS", 0.2)
    with pytest.raises(OSError, match="not there after"):
        read_bytes(f"{url}/{path}")


class Lines(io.StringIO):
    """A text stream; `written` is set by the first write."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


def test_a_long_wait_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "QUIET_SECONDS", 0.01)
    lines = Lines()
    monkeypatch.setattr(sys, "stderr", lines)
    with report_waiting("http://user:secret@host/x.tar", lambda: "HTTP 503; retry 1 of 4"):
        assert lines.written.wait(200)
    assert lines.getvalue().startswith("http://host/x.tar: waiting for the server (HTTP 503; retry")


@pytest.mark.timeout(60)
def test_a_short_wait_is_not(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    read_bytes(f"{url}/good")
    assert capsys.readouterr().err == ""


def test_the_reason_is_the_innermost_cause() -> None:
    cut = http.client.IncompleteRead(b"12", 3)
    outer = urllib3.exceptions.ProtocolError(f"Connection broken: {cut!r}", cut)
    pool = urllib3.HTTPConnectionPool("localhost")
    error = urllib3.exceptions.MaxRetryError(pool, "/x", outer)
    assert short_reason(error) == "the connection ended 3 bytes early, after 2 bytes"
    assert short_reason(ValueError("one\ntwo")) == "ValueError: one"
    assert short_reason(ValueError()) == "ValueError: "
    assert len(short_reason(ValueError("x" * 1000))) == 200


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "device", ".", "none", "loop", "a\0b", "x" * 300):
        for location in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(OSError, match=r"."):
                read_bytes(location)
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes((tmp_path / "fifo").as_uri())


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # it takes no disk
    with pytest.raises(OSError, match="more than 64 MiB"):
        read_bytes(tmp_path / "large")


@pytest.mark.parametrize("location", ["nosuch://x", "simplecache::file:///a", "memory://nowhere/x"])
def test_an_odd_scheme_is_an_error(location: str) -> None:
    with pytest.raises(OSError, match=r"."):
        read_bytes(location)


def test_what_is_no_url_is_a_mistake() -> None:
    with pytest.raises(UserError, match="not a URL"):
        read_bytes("http://[bad")


def test_common_network_errors_are_in_plain_words() -> None:
    pool = urllib3.PoolManager()
    with socket.socket() as unused, socket.socket() as silent:
        unused.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for url, said in (
            (
                f"127.0.0.1:{unused.getsockname()[1]}",
                "no server listens there (connection refused)",
            ),
            ("nosuch.invalid", "the name of the host is unknown"),
            (f"127.0.0.1:{silent.getsockname()[1]}", "the server did not answer in time"),
        ):
            for retries in (False, 0):
                with pytest.raises(urllib3.exceptions.HTTPError) as caught:
                    pool.request("GET", f"http://{url}/", retries=retries, timeout=0.2)
                assert short_reason(caught.value) == said
    loop = urllib3.exceptions.MaxRetryError(
        urllib3.HTTPConnectionPool("x"), "/", urllib3.exceptions.ResponseError("too many redirects")
    )
    assert short_reason(loop) == "too many redirects"
    gone = urllib3.exceptions.ProtocolError("", http.client.RemoteDisconnected("x"))
    assert short_reason(gone) == "the server closed the connection without an answer"

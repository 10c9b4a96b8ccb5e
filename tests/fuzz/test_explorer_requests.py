"""Any request to the explorer's server: an answer, and the next request is answered too."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st

from training.config import Config
from training.explorer.server import MAX_IMAGES_PER_REQUEST, create_app
from training.networks import ImageShape, build_generator
from training.options.architectures import DcganDiscriminator, DcganGenerator
from training.pretrained.inference import TrainedGenerator

TABLE = DcganGenerator(width=4, z_dim=8, condition="norm")
CONFIG = Config(generator=TABLE, discriminator=DcganDiscriminator(width=4, condition="projection"))
DATASET = {"name": "shells", "location": ""}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a real server with a small generator that nobody trained."""
    shape = ImageShape(16, 16, 3, 2)
    generator = build_generator(TABLE, shape).eval().requires_grad_(False)
    trained = TrainedGenerator(
        generator, "gaussian", ("cone", "whelk"), 0, shape, CONFIG, DATASET, Path("runs/fuzz")
    )
    app = create_app(trained, None, ["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listener.close()


def send(port: int, request: bytes, patience: float = 20.0) -> bytes:
    """The first bytes of the answer to raw bytes; empty where the server closes or waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as line:
        try:
            line.sendall(request)
            return line.recv(1000)
        except OSError:
            return b""


def post(path: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (path, size)
    return head + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def alive(port: int) -> bool:
    ws = struct.pack("<Ii8f", 1, 1, *[0.5] * 8)
    answer = send(port, post(b"/draw", ws))
    return status(answer) == 200


COUNTS = st.one_of(st.integers(0, MAX_IMAGES_PER_REQUEST + 1), st.sampled_from([10**9, 2**32 - 1]))
FLOATS = st.one_of(
    st.floats(width=32), st.sampled_from([float("nan"), float("inf"), 3e38, -3e38, 1e-45])
)


@given(
    st.sampled_from([b"/map", b"/draw", b"/nearest", b"/generator.json", b"/", b"/../config.json"]),
    COUNTS, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4), st.lists(FLOATS, max_size=40),
)  # fmt: skip
@example(b"/draw", 1, [1], [3e38] * 8)
@example(b"/map", 1, [0], [-3e38] * 8)
def test_any_body_is_answered(
    port: int, path: bytes, count: int, labels: list[int], values: list[float]
) -> None:
    body = struct.pack(f"<I{len(labels)}i{len(values)}f", count, *labels, *values)
    assert status(send(port, post(path, body))) in (200, 400, 404, 405)
    assert alive(port)


@given(st.binary(max_size=200), st.sampled_from([b"/map", b"/draw"]))
@example(b"\xff" * 200_000, b"/draw")
def test_any_bytes_are_answered(port: int, body: bytes, path: bytes) -> None:
    assert status(send(port, post(path, body))) in (200, 400)
    assert alive(port)


LINES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
        b"POST /draw HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /draw HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: many\r\n\r\n",
        b"POST /draw HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000000\r\n\r\nx",
        b"POST /draw HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n", b"DELETE /draw HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", b"GET \0 HTTP/9.9\r\n\r\n",
    ]),
)  # fmt: skip


@given(LINES)
def test_any_line_is_answered_or_closed(port: int, line: bytes) -> None:
    answer = send(port, line, 0.05)
    assert b"root:" not in answer
    assert status(answer) in (0, 200, 400, 404, 405)
    assert alive(port)


def test_a_fault_of_the_generator_is_one_answer(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operation")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "split", fail)
        assert status(send(port, post(b"/draw", struct.pack("<Ii8f", 1, 1, *[0.5] * 8)))) == 500
    assert alive(port)

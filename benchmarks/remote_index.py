"""Bytes that are read to index WebDataset tars on a server, in percent of their size.

A server on loopback answers ranges of tars and counts the bytes it sends. Each tar has 1,000
members: images of 100 kB, or such images and their labels. `--json` prints as the last line
`percent_NAME` and `requests_NAME` (per tar) for `images` and `samples`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

MEMBERS, IMAGE_BYTES = 1000, 100_000


def write_tar(path: Path, endings: tuple[str, ...]) -> int:
    """Write a sparse tar of samples with these members; return its size."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "JPEG")
    contents = {"jpg": buffer.getvalue(), "cls": b"1"}
    with path.open("wb") as file:
        for number in range(MEMBERS):
            ending = endings[number % len(endings)]
            info = tarfile.TarInfo(f"{number // len(endings):06d}.{ending}")
            data = contents[ending]
            info.size = IMAGE_BYTES if ending == "jpg" else len(data)
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            start = file.tell()
            file.write(data)
            file.seek(start + -(-info.size // 512) * 512)
        file.truncate(file.tell() + 1024)
    return path.stat().st_size


class Server(ThreadingHTTPServer):
    """Serves one file under every name."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.path, self.sent, self.asked = path, 0, 0
        self.guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
        with self.server.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(first)
            data = file.read(last - first + 1)
        with self.server.guard:
            self.server.sent += len(data)
            self.server.asked += 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serve(path: Path) -> Iterator[Server]:
    server = Server(path)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measure(tars: int, endings: tuple[str, ...]) -> tuple[float, float, float]:
    """Return the percentage of bytes, the requests per tar and the seconds."""
    from training.streaming.foreign import find_shards, index_tars
    from training.streaming.tar_scan import SampleOptions

    size = write_tar(Path("x.tar"), endings)
    with serve(Path("x.tar")) as server:
        port, start = server.server_address[1], time.monotonic()
        found = find_shards(f"http://127.0.0.1:{port}/x-{{0..{tars - 1}}}.tar")
        assert isinstance(found, list)
        index_tars(found, SampleOptions())
        seconds = time.monotonic() - start
        return 100 * server.sent / (tars * size), server.asked / tars, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    parser.add_argument("--tars", type=int, default=100, metavar="N", help="default: 100")
    known = parser.parse_args()
    found: dict[str, float] = {}
    before = Path.cwd()
    for name, endings in (("images", ("jpg",)), ("samples", ("jpg", "cls"))):
        with tempfile.TemporaryDirectory(prefix="remote-index-") as folder:
            os.chdir(folder)
            try:
                percent, requests, seconds = measure(known.tars, endings)
            finally:
                os.chdir(before)
        print(f"{'+'.join(endings):8} {percent:6.2f} % of the bytes, {requests:6.0f} requests per "
              f"tar, {seconds:.0f} s for {known.tars} tars")  # fmt: skip
        found |= {f"percent_{name}": percent, f"requests_{name}": requests}
    if known.json:
        print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()

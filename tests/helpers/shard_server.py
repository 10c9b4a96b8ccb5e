"""A server of shards that fails as it is told."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.helpers.static_site import BackgroundServer


class ShardServer(BackgroundServer):
    """Serves the files of a folder on loopback, with ranges, and fails as it is told.

    `cut[name]` is how many more answers of the file break off half-way, `spoil[name]` how many
    have a byte flipped, `busy[name]` how many are 503; `dead` names hang up on every request.
    `asked` lists (file name, Range header) in order, `sent` counts the bytes of bodies. `pause`
    seconds before each 64 KiB. Without `ranges`, every answer is a whole file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.pause = folder, 0.0
        self.cut: Counter[str] = Counter()
        self.spoil: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.dead: set[str] = set()
        self.ranges = True
        self.asked: list[tuple[str, str]] = []
        self.sent = 0
        super().__init__(type("Handler", (_Handler,), {"shards": self}))


class _Handler(BaseHTTPRequestHandler):
    shards: ShardServer
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        shards, path = self.shards, self.shards.folder / self.path.lstrip("/")
        name, asked = path.name, self.headers.get("Range", "")
        shards.asked.append((name, asked))
        if name in shards.dead:
            return
        if not path.is_file() or self._due(shards.busy, name):
            self.send_response(503 if path.is_file() else 404)
            self.end_headers()
            return
        data = bytearray(path.read_bytes())
        if self._due(shards.spoil, name):
            data[len(data) // 2] ^= 1
        start, end = self._range(asked if shards.ranges else "", len(data))
        if start and start >= len(data):
            self.send_response(416)
            self.end_headers()
            return
        is_part = bool(asked) and shards.ranges
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        end = (start + end) // 2 if self._due(shards.cut, name) else end
        with contextlib.suppress(OSError):
            for place in range(start, end, 1 << 16):
                time.sleep(shards.pause)
                shards.sent += self.wfile.write(data[place : min(place + (1 << 16), end)])

    @staticmethod
    def _range(asked: str, size: int) -> tuple[int, int]:
        """The first byte of the range, and the one after its last."""
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first or 0), min(int(last or size) + bool(last), size)

    @staticmethod
    def _due(left: Counter[str], name: str) -> bool:
        """Whether a fault is still due for the file; one less is, then."""
        due = left[name] > 0
        left[name] -= due
        return due

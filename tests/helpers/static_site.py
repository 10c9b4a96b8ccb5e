"""A folder served over real HTTP on loopback."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import unquote


class QuietServer(ThreadingHTTPServer):
    """Prints nothing about clients that close their connection early."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class BackgroundServer:
    """A server on loopback at `url`, in a thread of its own inside a `with` block."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Says nothing, and counts the statuses it answers, but for policy files. The page
    `list?a/b` is the file `list@a!b`, if there is one."""

    statuses: ClassVar[Counter[int]] = Counter()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        if self.path not in ("/robots.txt", "/.well-known/tdmrep.json"):
            self.statuses[int(str(code))] += 1

    def log_message(self, *_: object) -> None:
        pass

    def translate_path(self, path: str) -> str:
        place, _, query = unquote(path).partition("?")
        file = Path(self.directory, f"{place.lstrip('/')}@{query.replace('/', '!')}")
        return str(file) if query and file.is_file() else super().translate_path(path)

    def guess_type(self, path: object) -> str:
        kind = super().guess_type(str(path).partition("@")[0])
        return "text/html" if kind == "application/octet-stream" else kind


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A site over `folder`; gives its URL without the last slash."""
    server = QuietServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

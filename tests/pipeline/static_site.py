"""A folder served over real HTTP on loopback."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class QuietHandler(SimpleHTTPRequestHandler):
    """Says nothing, and counts the statuses it answers, but for policy files."""

    statuses: ClassVar[Counter[int]] = Counter()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        if self.path not in ("/robots.txt", "/.well-known/tdmrep.json"):
            self.statuses[int(str(code))] += 1

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A site over `folder`; gives its URL without the last slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

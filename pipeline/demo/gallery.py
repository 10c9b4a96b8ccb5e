"""The gallery: a site of rendered shells in a cache folder, served on loopback.

Run it with ``python -m pipeline.demo.gallery --port 8971 --count 2000 --seed 0``.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import NoReturn

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.demo.cache import FULL, draw_into, draw_missing, image_path
from pipeline.demo.layout import ORNAMENTS, SIZES, Specimen, Truth
from pipeline.demo.serving import LOOPBACK, LoopbackServer, StaticResponse
from pipeline.demo.shells import DRAWING
from pipeline.demo.site import Site, SpecimenImage, ornament
from pipeline.exit import CommandParser

DEFAULT_CACHE = Path("data/demo-gallery")
OPENED = 1_709_280_000.0
"""Last modification of the site's pages, as Unix time: the same in every run."""
LINE_SECONDS = 3.0
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png"}


class Gallery:
    """The site of ``count`` specimens of collection ``seed``, with its images in ``cache``."""

    def __init__(self, count: int, seed: int, cache: Path = DEFAULT_CACHE) -> None:
        self.count, self.seed, self.cache = count, seed, cache
        self._site = Site(count, seed)
        self._locks: dict[int, threading.Lock] = {}
        self._guard = threading.Lock()

    def truth(self) -> Truth:
        """Return the layout of the site."""
        return self._site.layout.truth()

    def specimens(self) -> list[Specimen]:
        """Return all specimens, including reserves, species by species."""
        layout = self._site.layout
        shown = [one for page in layout.species for one in page.specimens]
        return [*shown, *layout.reserve]

    def draw_all(self, progress: Callable[[int, int], None]) -> None:
        """Draw every image that is not in the cache; calls progress(done, total)."""
        self.cache.mkdir(parents=True, exist_ok=True)
        wanted = [
            (one.index, one.kind)
            for one in self.specimens()
            if not self._path(one.index, FULL, one.kind).exists()
        ]
        draw_missing(self.cache, self.seed, wanted, progress)

    def respond(self, path: str) -> StaticResponse:
        """Return the response for an unescaped path without a leading slash."""
        if path in ORNAMENTS:
            return self._ornament(path)
        found = self._site.resource_at(path)
        if found is None:
            text = self._site.notice("Not here", "There is nothing at this address.", "/")
            return StaticResponse(
                HTTPStatus.NOT_FOUND, "text/html; charset=utf-8", text.encode(), OPENED
            )
        if isinstance(found, SpecimenImage):
            body = self._image(found)
            return StaticResponse(HTTPStatus.OK, MEDIA_TYPES[found.kind], body, OPENED)
        return StaticResponse(HTTPStatus.OK, found.media_type, found.text.encode(), OPENED)

    def _path(self, index: int, side: int, kind: str) -> Path:
        return image_path(self.cache, DRAWING, self.seed, index, side, kind)

    def _image(self, image: SpecimenImage) -> bytes:
        """Return the bytes of an image, drawn now if it is not in the cache."""
        path = self._path(image.index, image.side, image.kind)
        with self._guard:
            lock = self._locks.setdefault(image.index, threading.Lock())
        with lock:
            if not path.exists():
                self.cache.mkdir(parents=True, exist_ok=True)
                draw_into(self.cache, self.seed, image.index, image.kind)
            return path.read_bytes()

    def _ornament(self, path: str) -> StaticResponse:
        """Return the logo or an icon; the logo is the site's first specimen, reduced."""
        first = self._site.layout.species[0].specimens[0]
        small = self._image(SpecimenImage(first.index, SIZES["thumb"], first.kind))
        out = io.BytesIO()
        with Image.open(io.BytesIO(small)) as logo:
            ornament(path, logo).save(out, "PNG")
        return StaticResponse(HTTPStatus.OK, "image/png", out.getvalue(), OPENED)


@dataclass(frozen=True)
class ServedGallery:
    """A running gallery: the URL of its root, and the requests so far."""

    gallery: Gallery
    url: str
    requests: list[str]


def bind_server(gallery: Gallery, port: int) -> LoopbackServer:
    """Return a server that is bound to its port (0: any free port) but does not listen yet.

    Raises OSError if the port is in use.
    """
    server = LoopbackServer(port, gallery.respond)
    try:
        server.server_bind()
    except OSError:
        server.server_close()
        raise
    return server


@contextmanager
def run_in_background(server: LoopbackServer) -> Iterator[str]:
    """Serve in the background while the context lasts; yields the site's URL."""
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve(gallery: Gallery, port: int = 0) -> Iterator[ServedGallery]:
    """Serve a gallery on 127.0.0.1 (port 0: any free port) while the context lasts."""
    server = bind_server(gallery, port)
    with run_in_background(server) as url:
        yield ServedGallery(gallery, url, server.requests)


class LineProgress:
    """Prints every few seconds what is being drawn, the progress and the time left."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Record that ``done`` of ``total`` are drawn."""
        now = time.monotonic()
        if total and (now - self._said >= LINE_SECONDS or done == total):
            self._said = now
            left = (now - self._started) * (total - done) / max(done, 1)
            print(f"drawing shells: {done} of {total}, {left:.0f} s left", flush=True)


def draw_with_progress(gallery: Gallery) -> None:
    """Draw missing images, with a progress bar on a terminal and lines otherwise."""
    console = Console()
    if not console.is_terminal:
        gallery.draw_all(LineProgress())
        return
    columns = (
        TextColumn("drawing shells"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("drawing", total=None)
        gallery.draw_all(lambda done, total: bar.update(task, completed=done, total=total))


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Exit with 0 when terminated, 130 when interrupted."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(130 if number == signal.SIGINT else 0)


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(
        prog="python -m pipeline.demo.gallery",
        description="Draw a gallery of sea shells and serve it on 127.0.0.1.",
    )
    parser.add_argument(
        "--port", type=int, default=8971, help="port to listen on (0: any free port)"
    )
    parser.add_argument("--count", type=int, default=2000, help="number of shells")
    parser.add_argument("--seed", type=int, default=0, help="seed of the collection")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for the images")
    parser.add_argument("--draw-only", action="store_true", help="draw, but do not serve")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count must be at least 1")
    if not 0 <= options.port <= 65535:
        parser.error("--port must be between 0 and 65535")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parse_args(arguments)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    gallery = Gallery(options.count, options.seed, options.cache)
    if options.draw_only:
        draw_with_progress(gallery)
        return 0
    try:
        # Bind before drawing, so that a port in use is reported at once.
        server = bind_server(gallery, options.port)
        draw_with_progress(gallery)
        with run_in_background(server) as url:
            print(f"serving {gallery.count} shells at {url}", flush=True)
            threading.Event().wait()
    except OSError as error:
        print(f"cannot serve on {LOOPBACK}:{options.port}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

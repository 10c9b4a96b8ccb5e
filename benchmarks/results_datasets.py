"""Three datasets of docs/results.md, each scraped from a web site on loopback by the four stages.

- `shells`: the gallery of rendered shells that comes with the project (`make demo`);
- `garments`: the photographs of a folder LABEL/IMAGE, served as a plain gallery;
- `prints`: pictures like woodblock prints (prints.py), served in the same way.

What exists is not fetched or built again.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from http import HTTPStatus
from pathlib import Path

from prints import SUBJECTS, draw_print

from pipeline.contract import DatasetPaths
from pipeline.demo.gallery import Gallery, draw_with_progress, run_in_background
from pipeline.demo.serving import LoopbackServer, StaticResponse
from pipeline.names import RECIPES_DIR
from pipeline.status import Status, read_status

PORTS = {"shells": 18971, "garments": 18972, "prints": 18973}
COUNT = 2000
PER_PAGE = 100
STAGES = ("crawl", "download", "select", "shard")
_RECIPE = """title = "{title}"

[source]
kind = "html"
start = ["http://127.0.0.1:{port}/"]
follow = ["nav a"]
next = "a[rel=next]"
item = "figure"
image = "a"
labels = [{{ page = "h1" }}]

[politeness]
allow_private = true
rate = 200
concurrency = 8

[shards]
class_label = 0
"""
Read = Callable[[str], bytes]


class PlainGallery:
    """A site with one series of pages per label: `images` maps labels to names of images, which
    `read` returns as JPEG files."""

    def __init__(self, title: str, images: dict[str, list[str]], read: Read) -> None:
        self._title, self._images, self._read = title, images, read
        self._known = {name for names in images.values() for name in names}

    def respond(self, path: str) -> StaticResponse:
        """Return the response for an unescaped path without a leading slash."""
        if path in self._known:
            return StaticResponse(HTTPStatus.OK, "image/jpeg", self._read(path), 0.0)
        label, _, page = path.removesuffix(".html").rpartition("-")
        if not path:
            links = "".join(f'<a href="{one}-1.html">{one}</a> ' for one in self._images)
            return self._page(f"<nav>{links}</nav>")
        if label not in self._images or not page.isdigit():
            return StaticResponse(HTTPStatus.NOT_FOUND, "text/html", b"not here", 0.0)
        start = (int(page) - 1) * PER_PAGE
        names = self._images[label]
        body = f"<h1>{escape(label)}</h1>" + "".join(
            f'<figure><a href="/{name}">image</a></figure>'
            for name in names[start : start + PER_PAGE]
        )
        if start + PER_PAGE < len(names):
            body += f'<a rel="next" href="{label}-{int(page) + 1}.html">next</a>'
        return self._page(body)

    def _page(self, body: str) -> StaticResponse:
        text = f"<!doctype html><title>{escape(self._title)}</title>{body}"
        return StaticResponse(HTTPStatus.OK, "text/html; charset=utf-8", text.encode(), 0.0)


def photograph_gallery(folder: Path) -> PlainGallery:
    """The photographs below `folder`, one label per folder."""
    images = {
        one.name: [f"{one.name}/{path.name}" for path in sorted(one.glob("*.jpg"))]
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }
    return PlainGallery("Garments", images, lambda name: (folder / name).read_bytes())


def print_gallery() -> PlainGallery:
    """`COUNT` prints, drawn when they are asked for."""
    images = {
        subject: [f"{subject}/{number}.jpg" for number in range(first, COUNT, len(SUBJECTS))]
        for first, subject in enumerate(SUBJECTS)
    }

    def read(name: str) -> bytes:
        out = io.BytesIO()
        draw_print(int(Path(name).stem))[1].save(out, "JPEG", quality=92)
        return out.getvalue()

    return PlainGallery("Prints", images, read)


@contextmanager
def served(respond: Callable[[str], StaticResponse], port: int) -> Iterator[None]:
    """Serve a site on loopback while the context lasts."""
    server = LoopbackServer(port, respond)
    server.server_bind()
    with run_in_background(server):
        yield


def build(name: str, out: Path, photographs: Path | None) -> Path:
    """Return the manifest folder of a dataset below `out`, scraped if it does not exist."""
    manifest = out / "manifests" / name
    if (manifest / "shards.json").exists():
        return manifest
    recipe, port = out / f"{name}.toml", PORTS[name]
    out.mkdir(parents=True, exist_ok=True)
    if name == "shells":
        shipped = (RECIPES_DIR / "shells.toml").read_text()
        recipe.write_text(shipped.replace("127.0.0.1:8971", f"127.0.0.1:{port}"))
        gallery = Gallery(COUNT, 0, out / "gallery")
        draw_with_progress(gallery)
        respond = gallery.respond
    else:
        recipe.write_text(_RECIPE.format(title=name.capitalize(), port=port))
        if name == "garments" and photographs is None:
            raise SystemExit("garments: give --photographs, a folder LABEL/IMAGE.jpg")
        respond = (print_gallery() if photographs is None or name == "prints"
                   else photograph_gallery(photographs)).respond  # fmt: skip
    with served(respond, port):
        for stage in STAGES:
            command = [sys.executable, "-m", "pipeline", stage, str(recipe), "--root", str(out)]
            code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
            if code not in (0, 1):  # 1: some pages or images failed, as the status says
                raise SystemExit(f"{recipe}: the stage {stage} ended with status {code}")
    return manifest


@cache
def status(name: str, out: Path) -> Status:
    """Return the counts of every stage."""
    return read_status(DatasetPaths(name, out))

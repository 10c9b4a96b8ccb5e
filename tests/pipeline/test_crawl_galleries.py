"""Galleries as real generators write them, crawled over real HTTP through the whole engine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.contract import Dataset, read_jsonl
from pipeline.events import EventLog
from pipeline.recipe import load_recipe
from pipeline.stages.crawl import CrawlResult, crawl

SITES = Path(__file__).parent / "sites"
GALLERIES = Path(__file__).parents[1] / "data" / "galleries"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A loopback site over `folder`; gives its URL without the last slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def crawled(name: str, url: str, root: Path) -> tuple[CrawlResult, list[dict[str, object]]]:
    """Crawl the site at `url` by the recipe `name`; the result and the manifest's rows."""
    recipe = load_recipe(SITES / f"{name}.toml", {"source.start": [f"{url}/index.html"]})
    dataset = Dataset(name, root)
    with EventLog(dataset, "test") as log:
        result = crawl(recipe, dataset, log)
    return result, list(read_jsonl(dataset.urls))


EXPECTED = {
    "lazygal": lambda path: path.name.count("_") == 0 and path.parent.name in ("dresses", "shirts"),
    "llgal": lambda path: not path.name.startswith("thumb_"),
    "sigal": lambda path: path.parent.name == "original",
}
"""Which of a gallery's image files are the full size; known from how its generator names them."""


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_takes_exactly_the_full_size_images(name: str, tmp_path: Path) -> None:
    files = sorted((GALLERIES / name).rglob("*.jpg"))
    full = {path.relative_to(GALLERIES / name).as_posix() for path in files if EXPECTED[name](path)}
    assert 0 < len(full) < len(files)
    with served(GALLERIES / name) as url:
        result, rows = crawled(name, url, tmp_path)
        assert {row["url"] for row in rows} == {f"{url}/{path}" for path in full}
    assert len(rows) == len(full) == result.urls == result.new
    assert (result.failed, result.vanished) == (0, 0)


def test_recipes_are_short() -> None:
    for name in EXPECTED:
        assert len((SITES / f"{name}.toml").read_text().splitlines()) < 25


@pytest.mark.parametrize("name", ["lazygal", "sigal"])
def test_labels_are_the_albums(name: str, tmp_path: Path) -> None:
    with served(GALLERIES / name) as url:
        _, rows = crawled(name, url, tmp_path)
    for row in rows:
        assert row["labels"] == [str(row["url"]).removeprefix(url).split("/")[1]]
        assert row["title"]
        assert str(row["page"]).startswith(url)

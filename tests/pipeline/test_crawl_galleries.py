"""Galleries as real generators write them, crawled over real HTTP through the whole engine."""

from http import HTTPStatus
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import crawl
from pipeline.demo.gallery import Gallery, serve
from pipeline.events import EventLog
from pipeline.recipe import load_recipe, recipe_path
from pipeline.web.urls import canonical_url
from tests.helpers.static_site import QuietHandler, served

SITES = Path(__file__).parent / "sites"
GALLERIES = Path(__file__).parents[1] / "data" / "galleries"


def crawled(
    name: str, url: str, root: Path, refresh: bool = False
) -> tuple[CrawlResult, list[dict[str, object]]]:
    """Crawl the site at `url` by the recipe `name`; the result and the manifest's rows."""
    recipe = load_recipe(SITES / f"{name}.toml", {"source.start": [f"{url}/index.html"]})
    dataset = DatasetPaths(name, root)
    with EventLog(dataset, "test") as log:
        result = crawl(recipe, dataset, log, refresh=refresh)
    return result, list(read_jsonl(dataset.url_manifest))


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


def test_unchanged_files_of_a_plain_server_are_not_sent_again(tmp_path: Path) -> None:
    with served(GALLERIES / "lazygal") as url:  # answers Last-Modified and no ETag
        first, _ = crawled("lazygal", url, tmp_path)
        QuietHandler.statuses.clear()
        again, _ = crawled("lazygal", url, tmp_path, refresh=True)
    assert (again.new, again.vanished, again.pages) == (0, 0, first.pages)
    assert QuietHandler.statuses == {HTTPStatus.NOT_MODIFIED: first.pages}


@pytest.mark.slow
def test_the_embedded_gallery(tmp_path: Path) -> None:
    gallery = Gallery(200, 1, tmp_path / "cache")
    truth = gallery.truth()
    with serve(gallery) as site:
        recipe = load_recipe(recipe_path("shells"), {"source.start": [site.url]})
        dataset = DatasetPaths("shells", tmp_path)
        with EventLog(dataset, "test") as log:
            crawl(recipe, dataset, log)
        rows = {str(row["url"]): row for row in read_jsonl(dataset.url_manifest)}
        broken = {canonical_url(one.path, site.url) for one in truth.faults}
        forbidden = {canonical_url(path, site.url) for path in truth.disallowed}
        pictures = {canonical_url(one.path, site.url): one for one in truth.images}
    assert pictures.keys() <= rows.keys()
    assert rows.keys() - pictures.keys() <= broken | forbidden
    for url, picture in pictures.items():
        row = rows[str(url)]
        assert row["labels"] == [picture.family, picture.species]
        assert (row["license"], row["attribution"]) == (picture.licence, picture.credit)

"""Proposed recipes, unedited, on galleries of many generators: every full-size image, nothing else.

Each folder of the data with an `expected.json` is a site: where it starts and which images a crawl
is to find. The pages are as generators write them; there are no image files, as none is asked for.
"""

import json
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.check_recipe import propose_recipe
from pipeline.crawl.stage import crawl
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.recipe import Recipe, load_recipe
from pipeline.web.urls import canonical_url
from tests.helpers.static_site import served

GALLERIES = Path(__file__).parents[1] / "data" / "galleries"
SITES = sorted(path.parent.name for path in GALLERIES.glob("*/expected.json"))
LOOPBACK = Politeness(allow_private=True, rate=1000, concurrency=4)


def crawled(folder: Path, start: str, tmp_path: Path) -> tuple[str, set[str], set[str]]:
    """The proposal for a site, the images a crawl by it finds, and the pages with images."""
    with served(folder) as url:
        text = propose_recipe(f"{url}/{start}", LOOPBACK)
        path = tmp_path / "proposed.toml"
        path.write_text(text)
        recipe = Recipe(source=load_recipe(path).source, politeness=LOOPBACK)
        dataset = DatasetPaths("d", tmp_path)
        with EventLog(dataset, "test") as log:
            result = crawl(recipe, dataset, log)
        assert result.failed == 0, text  # no image and no foreign page was taken for a page
        rows = list(read_jsonl(dataset.url_manifest)) if dataset.url_manifest.exists() else []
        images = {str(row["url"]).removeprefix(f"{url}/") for row in rows}
        pages = {str(row["page"]).removeprefix(f"{url}/") for row in rows}
    return text, images, pages


def test_there_are_galleries_of_many_generators() -> None:
    generators = {name.partition("-")[0] for name in SITES}
    assert len(generators) >= 15, generators


@pytest.mark.slow
@pytest.mark.parametrize("name", SITES)
def test_an_unedited_proposal_finds_every_full_size_image_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    expected = json.loads((GALLERIES / name / "expected.json").read_text())
    text, images, _ = crawled(GALLERIES / name, expected["start"], tmp_path)
    wanted = {canonical_url(image, "http://x/") for image in expected["images"]}
    assert images == {str(url).removeprefix("http://x/") for url in wanted}, text


def test_a_proposal_does_not_leave_the_gallery(tmp_path: Path) -> None:
    for name in ("wordpress-paged", "plain-numbers", "text-albums-paged"):
        folder = tmp_path / name
        folder.mkdir()
        start = json.loads((GALLERIES / name / "expected.json").read_text())["start"]
        _, _, pages = crawled(GALLERIES / name, start, folder)
        assert pages
        assert all(page.startswith(start.rpartition("/")[0]) for page in pages)

"""Pages with text from outside, in a browser: nothing of it runs, nothing is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, read_jsonl
from pipeline.crawl.stage import crawl
from pipeline.demo.shells import draw
from pipeline.events import EventLog
from pipeline.options import SelectOptions, ShardOptions
from pipeline.originals.download import download
from pipeline.recipe import Recipe
from pipeline.select.preview import preview
from pipeline.select.stage import select
from pipeline.shards.card import card_page
from pipeline.shards.stage import shard
from pipeline.sources.folder import FolderSource
from training.monitoring.history import Row
from training.report import write_report
from training.runs import Run

HOSTILE = (
    "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    "![x](http://127.0.0.1:9/remote.png) [a](javascript:window.ran=1) | `x` "
    "<svg onload=window.ran=1>"
)
OVERFLOWS = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetPaths:
    """A dataset whose title, labels, licences and attributions are hostile, with all its pages."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        draw(1, number, 64).save(pictures / f"{number}.png")
    recipe = Recipe(
        source=FolderSource(start=(pictures,)),
        title=HOSTILE,
        select=SelectOptions(min_side=16, near_duplicate_bits="off"),
        shards=ShardOptions(resolution=32),
    )
    made = DatasetPaths("mine", tmp_path)
    with EventLog(made, "run") as log:
        crawl(recipe, made, log)
        rows = list(read_jsonl(made.url_manifest))
        made.url_manifest.unlink()
        with JsonlAppender(made.url_manifest) as file:
            hostile = dict.fromkeys(("license", "attribution", "title"), HOSTILE)
            file.append(*({**row, **hostile, "labels": [HOSTILE]} for row in rows))
        for stage in (download, select, shard):
            stage(recipe, made, log)
        preview(recipe, made, log)
    return made


def look(browser: Any, page: Path, seen: str) -> None:
    """Open a page; it shows `seen`, runs nothing and asks for nothing."""
    browser.look(1200, 900, "light")
    browser.events.clear()
    browser.open(page.as_uri())
    browser.until(f"document.body?.innerText.includes({json.dumps(seen)})")
    assert browser.js("window.ran === undefined")
    assert not browser.js(OVERFLOWS)
    asked = [url for url in browser.asked() if not url.startswith(("data:", page.as_uri()))]
    assert asked == []
    assert browser.complaints() == []


def test_hostile_text_in_the_pages_of_a_dataset(dataset: DatasetPaths, browser: Any) -> None:
    for name in ("card.html", "preview.html"):
        page = dataset.manifest_dir / name
        look(browser, page, "<script>window.ran = 1" if name == "card.html" else "mine")
        loose = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
        assert browser.js("document.images.length") > 0
        assert browser.js(loose) == 0
        assert browser.js("document.querySelectorAll('a, script').length") == 0


def test_hostile_text_in_the_report_of_a_run(
    dataset: DatasetPaths, browser: Any, run_of: Callable[..., Path]
) -> None:
    folder = run_of("dcgan", str(dataset.manifest_dir))
    described = json.loads((folder / "config.json").read_bytes())
    described["dataset"]["labels"] = [HOSTILE]
    (folder / "config.json").write_text(json.dumps(described))
    # As written by a version that did not escape, or by someone else.
    Image.new("RGB", (4, 4)).save(dataset.manifest_dir / "contact.jpg")
    page = card_page("# Shells\n\n![samples](contact.jpg)\n", dataset.manifest_dir)
    live = f"<p onclick=x>{HOSTILE}</p></main></div>{HOSTILE}<table><tr><td>open"
    (dataset.manifest_dir / "card.html").write_text(page.replace("</main>", f"{live}</main>"))
    rows: list[Row] = [
        {"seen": seen, "loss_d": 1.0, "loss_g": 1.0, "images_per_second": 1.0, HOSTILE: 0.5}
        for seen in (1000, 2000)
    ]
    write_report(Run(folder), rows)
    look(browser, folder / "report.html", "over kimg")
    browser.js("document.querySelectorAll('details').forEach(one => one.open = true), 0")
    assert browser.js("document.querySelectorAll('#charts svg').length") >= 2
    assert browser.js("document.querySelectorAll('.dataset img').length") == 1
    assert browser.js("document.querySelectorAll('.dataset script, .dataset svg').length") == 0
    assert browser.js("window.ran === undefined")

"""What changes between two crawls: lost results, boxes, opt-outs and labels from links."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.stage import crawl
from pipeline.crawl.state import open_crawl_state
from pipeline.events import EventLog
from pipeline.originals.download import DownloadResult, download
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.retry import retry_failures
from pipeline.sources import PageRequest
from tests.helpers.faulty_site import FaultySite, Request, Row, picture

POLITE = {"allow_private": True, "rate": 1000, "concurrency": 4, "attempts": 1}
NOAI = '<meta name="robots" content="noai">'


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetPaths:
    return DatasetPaths("d", tmp_path)


def put(site: FaultySite, path: str, body: str | bytes, type_: str = "text/html") -> None:
    """Serve a body with an ETag, and 304 to those who know it."""
    data = body.encode() if isinstance(body, str) else body
    tag = f'"{hash(data)}"'

    def answer(request: Request) -> None:
        if request.headers.get("if-none-match") == tag:
            request.answer(status="304 Not Modified", length=-1, ETag=tag)
        else:
            request.answer(data, type_=type_, ETag=tag)

    site.rows[path] = Row(path, answer)


def put_page(site: FaultySite, path: str, *images: str, head: str = "") -> None:
    links = "".join(f'<img src="{image}">' for image in images)
    put(site, path, f"<html><head>{head}</head><body>{links}</body></html>")


def recipe_of(site: FaultySite, *start: str, polite: Any = (), **source: Any) -> Recipe:
    values = {"kind": "html", "start": [site.url(path) for path in start], **source}
    return parse_config(
        Recipe, {"source": values, "politeness": {**POLITE, **dict(polite)}}, "test"
    )


def crawled(recipe: Recipe, dataset: DatasetPaths, refresh: bool = False) -> list[dict[str, Any]]:
    """The manifest after a crawl."""
    with EventLog(dataset, "test") as log:
        crawl(recipe, dataset, log, refresh=refresh)
    return list(read_jsonl(dataset.url_manifest))


def downloaded(recipe: Recipe, dataset: DatasetPaths) -> DownloadResult:
    with EventLog(dataset, "test") as log:
        return download(recipe, dataset, log)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["url"].rpartition("/")[2] for row in rows]


def opted_out(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {row["url"].rpartition("/")[2]: row["page_opt_out"] for row in rows
            if "page_opt_out" in row}  # fmt: skip


# results that were not written


def test_a_refresh_reads_a_page_again_whose_result_was_not_written(
    faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    put_page(faulty_site, "/", *(f"/{n}.jpg" for n in range(5)))
    assert len(crawled(recipe_of(faulty_site, "/", max_images=2), dataset)) == 2
    assert len(crawled(recipe_of(faulty_site, "/"), dataset, refresh=True)) == 5


def test_only_results_that_were_not_written_lose_their_validators(dataset: DatasetPaths) -> None:
    with open_crawl_state(dataset) as state:
        state.add_pages(PageRequest(f"http://a.example/{n}") for n in range(2))
        for page in state.waiting(2, 9):
            state.store_result(page.id, "{}", "tag", "then", "digest")
        state.finish_unchanged(1, "now")
        state.requeue_all(unconditionally=False)
        first, second = state.waiting(2, 9)
    assert (first.etag, first.last_modified, first.digest) == ("tag", "then", "digest")
    assert (second.etag, second.last_modified, second.digest) == (None, None, None)


def test_a_changed_list_of_which_a_part_was_written_is_read_to_its_end(
    dataset: DatasetPaths, tmp_path: Path
) -> None:
    path = tmp_path / "urls.txt"

    def run(count: int, refresh: bool = False, **limits: int) -> list[dict[str, Any]]:
        path.write_text("".join(f"http://a.example/{n}.jpg\n" for n in range(count)))
        os.utime(path, ns=(count, count))
        source = {"kind": "list", "start": [str(path)], **limits}
        return crawled(parse_config(Recipe, {"source": source}, "test"), dataset, refresh)

    assert len(run(2)) == 2
    assert len(run(5, refresh=True, max_images=3)) == 3
    assert len(run(5)) == 5


# boxes and withdrawn opt-outs


def test_changed_and_removed_boxes_reach_the_manifest(
    dataset: DatasetPaths, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    recipe = parse_config(Recipe, {"source": {"kind": "list", "start": [str(path)]}}, "test")

    def run(boxes: str) -> dict[str, Any]:
        path.write_text(f'url,boxes,title\nhttp://a.example/x.jpg,"{boxes}",Conus\n')
        (row,) = crawled(recipe, dataset, refresh=True)
        return row

    assert run("[[0,0,10,10]]")["boxes"] == [[0, 0, 10, 10]]
    assert run("[[20,30,900,990]]")["boxes"] == [[20, 30, 900, 990]]
    last = run("")
    assert "boxes" not in last
    assert last["title"] == "Conus"


def test_a_withdrawn_opt_out_leaves_the_manifest(
    faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    put_page(faulty_site, "/", "/a.jpg", head=NOAI)
    mine = {"opt_out_overrides": {"noai": "by e-mail"}}
    rows = crawled(recipe_of(faulty_site, "/", polite=mine), dataset)
    assert opted_out(rows) == {"a.jpg": ["noai: meta element"]}
    put_page(faulty_site, "/", "/a.jpg")
    assert opted_out(crawled(recipe_of(faulty_site, "/"), dataset, refresh=True)) == {}


# pages that opt out later


@pytest.mark.parametrize("planned", [False, True])
def test_images_of_a_page_that_opts_out_later_are_not_requested(
    planned: bool, faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    put(faulty_site, "/a.jpg", picture(1), "image/jpeg")
    put(faulty_site, "/b.jpg", picture(2), "image/jpeg")
    put_page(faulty_site, "/1", "/a.jpg")
    put_page(faulty_site, "/2", "/b.jpg")
    recipe = recipe_of(faulty_site, "/1", "/2")
    crawled(recipe, dataset)
    if planned:
        assign_parts(dataset)
    put_page(faulty_site, "/1", "/a.jpg", head=NOAI)
    rows = crawled(recipe, dataset, refresh=True)
    assert opted_out(rows) == {"a.jpg": ["noai: meta element"]}
    result = downloaded(recipe, dataset)
    assert (result.images, result.failed) == (1, 1)
    assert "/a.jpg" not in faulty_site.asked()
    *_, line = read_jsonl(dataset.failure_log)
    assert (line["stage"], line["kind"], line["detail"]) == (
        "download", "opt_out", "noai: page, meta element",
    )  # fmt: skip

    # It withdraws the opt-out, and the image can be retried.
    put_page(faulty_site, "/1", "/a.jpg")
    assert opted_out(crawled(recipe, dataset, refresh=True)) == {}
    with EventLog(dataset, "test") as log:
        assert retry_failures(recipe, dataset, log, kinds=("opt_out",)).resolved == 1
    assert len(list(read_records(dataset))) == 2


def test_an_override_of_a_later_opt_out_counts(
    faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    put(faulty_site, "/a.jpg", picture(1), "image/jpeg")
    put_page(faulty_site, "/", "/a.jpg")
    crawled(recipe_of(faulty_site, "/"), dataset)
    put_page(faulty_site, "/", "/a.jpg", head=NOAI)
    crawled(recipe_of(faulty_site, "/"), dataset, refresh=True)
    mine = {"opt_out_overrides": {"noai": "by e-mail"}}
    assert downloaded(recipe_of(faulty_site, "/", polite=mine), dataset).images == 1
    (record,) = read_records(dataset)
    assert record.opt_out == [
        {"signal": "noai", "where": "page, meta element", "overridden": "by e-mail"}
    ]


def test_an_image_stays_while_one_of_its_pages_does_not_opt_out(
    faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    for path in ("/1", "/2"):
        put_page(faulty_site, path, "/shared.jpg", f"{path}.jpg")
    recipe = recipe_of(faulty_site, "/1", "/2")
    before = crawled(recipe, dataset)
    put_page(faulty_site, "/1", "/shared.jpg", "/1.jpg", head=NOAI)
    assert list(opted_out(crawled(recipe, dataset, refresh=True))) == ["1.jpg"]
    put_page(faulty_site, "/2", "/2.jpg")  # and no longer the shared image
    assert sorted(opted_out(crawled(recipe, dataset, refresh=True))) == ["1.jpg", "shared.jpg"]
    put_page(faulty_site, "/1", "/shared.jpg", "/1.jpg")
    assert crawled(recipe, dataset, refresh=True) == before


# the context of pages


def test_a_label_of_follow_that_was_added_later_reaches_the_images(
    faulty_site: FaultySite, dataset: DatasetPaths, tmp_path: Path
) -> None:
    groups = [f"group{n}" for n in range(8)]
    put(faulty_site, "/list", json.dumps({"groups": groups, "items": []}), "application/json")
    for group in groups:
        body = json.dumps({"items": [{"url": f"/{group}.jpg"}]})
        put(faulty_site, f"/g/{group}", body, "application/json")

    def recipe(**follow: str) -> Recipe:
        rule = {"values": "groups", "url": "/g/{}", **follow}
        return recipe_of(
            faulty_site, "/list", kind="json", items="items", image="media.url", follow=[rule]
        )

    assert {tuple(row["labels"]) for row in crawled(recipe(), dataset)} == {()}
    rows = crawled(recipe(label=".*"), dataset)
    assert [row["labels"] for row in rows] == [[group] for group in groups]
    new = crawled(recipe(label=".*"), DatasetPaths("new", tmp_path))
    assert [row["labels"] for row in new] == [row["labels"] for row in rows]


def test_a_stale_context_is_replaced_except_its_chain(dataset: DatasetPaths) -> None:
    chain = {"gained": 3, "idle": 0}
    with open_crawl_state(dataset) as state:
        state.add_pages([
            PageRequest("http://a.example/1", 2, {"labels": ["old"], "chain": chain}),
            PageRequest("http://a.example/2", 2, {"labels": ["old"]}),
        ])  # fmt: skip
        state.add_pages([PageRequest("http://a.example/1", 1, {"labels": ["ignored"]})])
        state.requeue_all(unconditionally=True)
        state.requeue_all(unconditionally=True)
        (first,) = state.waiting(9, 9)  # only the first may be fetched with its old context
        assert first.request.context == {"labels": ["old"], "chain": chain}
        new = {"labels": ["né\ud800w"], "chain": {"gained": 9, "idle": 9}}
        state.add_pages([PageRequest(f"http://a.example/{n}", 1, new) for n in (1, 2)])
        pages = [one.request for one in state.waiting(9, 9)]
    assert [dict(one.context) for one in pages] == [
        {"labels": ["né\ud800w"], "chain": chain},
        {"labels": ["né\ud800w"]},
    ]
    assert {one.depth for one in pages} == {1}


def test_pages_that_the_changed_recipe_does_not_link_keep_their_context(
    faulty_site: FaultySite, dataset: DatasetPaths
) -> None:
    put(faulty_site, "/", '<a class=album href="/1"></a><a class=album href="/2"></a>')
    for path in ("/1", "/2"):
        put_page(faulty_site, path, f"{path}.jpg")
    rule = {"select": ".album", "labels": [{"of": "page_url", "match": "(http)"}]}
    before = crawled(recipe_of(faulty_site, "/", follow=[rule]), dataset)
    after = crawled(recipe_of(faulty_site, "/1", follow=[rule]), dataset)
    assert names(after) == names(before) == ["1.jpg", "2.jpg"]

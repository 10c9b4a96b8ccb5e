"""The crawl engine over real HTTP: order, kills, re-scraping, failures, limits."""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, image_key, read_jsonl
from pipeline.crawl import image_index as crawl_images
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import MIN_THREADS, crawl, retry_pages
from pipeline.errors import UserError
from pipeline.events import EventLog, unresolved_failures
from pipeline.recipe import Recipe
from pipeline.status import read_status
from pipeline.web.failures import failure
from tests.helpers.static_site import QuietServer

POLICY_FILES = ("/robots.txt", "/.well-known/tdmrep.json")


class Site:
    """A loopback site whose pages a test sets; counts the requests, but for policy files, and
    answers conditional ones."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.statuses: dict[str, int] = {}
        self.types: dict[str, str] = {}
        self.hits: Counter[str] = Counter()
        self.unchanged = 0
        self.delay = 0.0
        self.before_answer: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        with self._lock:
            if path not in POLICY_FILES:
                self.hits[path] += 1
            body = self.pages.get(path, "").encode()
        self.before_answer()
        if self.delay:
            time.sleep(random.Random(path).random() * self.delay)
        status = self.statuses.get(path, 200 if body else 404)
        etag = f'"{sha256(body).hexdigest()[:16]}"'
        if status == 200 and request.headers.get("If-None-Match") == etag:
            with self._lock:
                self.unchanged += 1
            status, body = 304, b""
        request.send_response(status)
        request.send_header("ETag", etag)
        request.send_header("Content-Type", self.types.get(path, "text/html; charset=utf-8"))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def running() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.02,))
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


def page(*images: str, follow: tuple[str, ...] = (), after: str = "") -> str:
    links = [f'<a class=album href="{url}">album</a>' for url in follow]
    links += [f'<a rel=next href="{after}">next</a>'] if after else []
    return "<html>" + "".join([*(f'<img src="{url}">' for url in images), *links]) + "</html>"


def fill(site: Site, albums: int = 24) -> None:
    """Three index pages, each leading to its albums; every album has images of its own, one it
    shares with its neighbour, and a slide behind it."""
    for number in range(3):
        mine = tuple(f"/album{n}.html" for n in range(number, albums, 3))
        after = f"/index{number + 1}.html" if number < 2 else ""
        site.pages[f"/index{number}.html"] = page(follow=mine, after=after)
    for n in range(albums):
        images = [f"/{n}-{i}.jpg" for i in range(n % 4 + 1)]
        site.pages[f"/album{n}.html"] = page(
            *images, f"/shared{n // 2}.jpg", follow=(f"/slide{n}.html",)
        )
        site.pages[f"/slide{n}.html"] = page(f"/big{n}.jpg")


def recipe_of(site: Site, **source: Any) -> Recipe:
    values = {
        "source": {
            "kind": "html",
            "start": [f"{site.url}/index0.html"],
            "follow": [".album"],
            "next": "[rel=next]",
            **source,
        },
        "politeness": {
            "allow_private": True, "rate": 5000, "concurrency": 4, "obey_robots": False,
            "attempts": 1,
        },
    }  # fmt: skip
    return parse_config(Recipe, values, "test")


def run(site: Site, dataset: DatasetPaths, refresh: bool = False, **source: Any) -> CrawlResult:
    with EventLog(dataset, "test") as log:
        return crawl(recipe_of(site, **source), dataset, log, refresh=refresh)


def rows_of(dataset: DatasetPaths) -> list[dict[str, Any]]:
    rows = list(read_jsonl(dataset.url_manifest))
    for row in rows:
        assert row.pop("found").endswith("Z")
        assert row["key"] == image_key(row["url"])
    assert len({row["key"] for row in rows}) == len(rows)
    return rows


def failures_of(dataset: DatasetPaths) -> dict[str, str]:
    return {row["url"]: row["kind"] for row in read_jsonl(dataset.failure_log)}


def test_manifest_is_in_the_order_of_the_pages(site: Site, tmp_path: Path) -> None:
    fill(site)
    first, second = DatasetPaths("first", tmp_path), DatasetPaths("second", tmp_path)
    result = run(site, first)
    assert result.pages == len(site.pages) == 3 + 24 + 24
    images = 24 * (1 + 2 + 3 + 4) // 4 + 12 + 24
    assert result.urls == result.new == images == len(rows_of(first))
    assert set(site.hits.values()) == {1}
    site.delay = 0.03  # answers now come back in another order
    run(site, second)
    assert rows_of(second) == rows_of(first)


def test_a_finished_crawl_does_nothing(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    first = run(site, dataset)
    hits, text = sum(site.hits.values()), dataset.url_manifest.read_bytes()
    again = run(site, dataset)
    assert (again.new, again.urls, again.pages) == (0, first.urls, first.pages)
    assert sum(site.hits.values()) == hits
    assert dataset.url_manifest.read_bytes() == text


CHILD = """
import json, os, sys
from pathlib import Path
from pipeline.contract import DatasetPaths
from pipeline.events import EventLog, unresolved_failures
from pipeline.recipe import Recipe
from pipeline.crawl.image_index import ImageIndex
from pipeline.crawl.stage import crawl
from pipeline.status import read_status
from pipeline.config_io import parse_config
from pipeline.web.failures import failure

recipe = parse_config(Recipe, json.loads(sys.argv[1]), "argv")
root, die_at = sys.argv[2], int(sys.argv[3])
remember, calls = ImageIndex._remember, 0

def die(self, *args):
    global calls
    calls += 1
    if calls == die_at:
        os.kill(os.getpid(), 9)
    remember(self, *args)

ImageIndex._remember = die
dataset = DatasetPaths("killed", Path(root))
with EventLog(dataset, "child") as log:
    crawl(recipe, dataset, log, refresh=len(sys.argv) > 4)
"""


def start_child(
    site: Site, root: Path, die_at: int = 0, refresh: bool = False
) -> subprocess.Popen[bytes]:
    """A real process that crawls; it kills itself between the `die_at`-th writing of rows to the
    manifest and their commit to the journal."""
    recipe = {
        "source": {
            "kind": "html", "start": [f"{site.url}/index0.html"], "follow": [".album"],
            "next": "[rel=next]",
        },
        "politeness": {
            "allow_private": True, "rate": 5000, "concurrency": 4, "obey_robots": False,
        },
    }  # fmt: skip
    more = ["refresh"] if refresh else []
    command = [sys.executable, "-c", CHILD, json.dumps(recipe), str(root), str(die_at), *more]
    return subprocess.Popen(command)


def test_killed_again_and_again_it_ends_with_the_same_manifest(site: Site, tmp_path: Path) -> None:
    fill(site)
    undisturbed = DatasetPaths("undisturbed", tmp_path)
    run(site, undisturbed)
    site.hits.clear()
    site.delay = 0.1
    killed = DatasetPaths("killed", tmp_path)
    kills = 0
    while True:
        before = sum(site.hits.values())
        child = start_child(site, tmp_path)
        while child.poll() is None and sum(site.hits.values()) - before < 9:
            time.sleep(0.001)
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
        if kills % 3 == 0 and killed.url_manifest.exists():
            with killed.url_manifest.open("ab") as file:
                file.write(b'{"key": "0123')  # a line that a kill tore
    assert child.returncode == 0
    assert kills >= 4
    assert rows_of(killed) == rows_of(undisturbed)
    assert sum(site.hits.values()) <= len(site.pages) + kills * MIN_THREADS


@pytest.mark.parametrize("die_at", [1, 7])
def test_killed_between_manifest_and_journal(site: Site, tmp_path: Path, die_at: int) -> None:
    fill(site)
    undisturbed, killed = DatasetPaths("undisturbed", tmp_path), DatasetPaths("killed", tmp_path)
    run(site, undisturbed)
    for _ in range(2):
        assert start_child(site, tmp_path, die_at).wait() == -signal.SIGKILL
    assert rows_of(killed)  # these are in the manifest, and the journal does not know the last
    assert start_child(site, tmp_path).wait() == 0
    assert rows_of(killed) == rows_of(undisturbed)


@pytest.mark.parametrize("damage", ["shortened", "emptied", "removed", "line cut out", "torn"])
def test_rows_lost_from_the_manifest_come_back(site: Site, tmp_path: Path, damage: str) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    whole = {row["url"] for row in rows_of(dataset)}
    lines = dataset.url_manifest.read_bytes().splitlines(keepends=True)
    if damage == "removed":
        dataset.url_manifest.unlink()
    else:
        kept = {
            "shortened": lines[:20],
            "emptied": [],
            "line cut out": lines[:5] + lines[6:],
            "torn": [*lines[:-1], lines[-1][:30]],
        }[damage]
        dataset.url_manifest.write_bytes(b"".join(kept))
    site.hits.clear()
    result = run(site, dataset)
    assert {row["url"] for row in rows_of(dataset)} == whole
    assert result.urls == len(whole)
    assert 0 < sum(site.hits.values()) <= result.pages
    run(site, dataset)
    assert len(rows_of(dataset)) == len(whole)


def test_rows_written_by_others_are_known(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    url = f"{site.url}/big3.jpg"
    dataset.manifest_dir.mkdir(parents=True)
    foreign = {"key": image_key(url), "url": url, "title": "mine", "found": "2020-01-01T00:00:00Z"}
    dataset.url_manifest.write_text(json.dumps(foreign) + "\n")
    result = run(site, dataset)
    rows = rows_of(dataset)
    assert rows[0]["title"] == "mine"
    assert result.new == len(rows) - 1


def test_a_journal_that_is_lost_damaged_or_of_another_version(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    text = dataset.url_manifest.read_bytes()
    for path in dataset.data_dir.glob("crawl.sqlite*"):
        path.unlink()
    with sqlite3.connect(dataset.crawl_state) as db:
        db.execute("CREATE TABLE images (something_else)")
    db.close()
    assert run(site, dataset).new == 0
    assert dataset.url_manifest.read_bytes() == text
    dataset.crawl_state.write_bytes(b"this is no journal" * 100)
    with pytest.raises(UserError, match=r"crawl.sqlite: .*; remove it"):
        run(site, dataset)


@pytest.mark.slow
@pytest.mark.parametrize("recent", [5, crawl_images.RECENT])
def test_refresh_takes_what_is_new_and_marks_what_is_gone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr(crawl_images, "RECENT", recent)
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    before = run(site, dataset)
    text = dataset.url_manifest.read_bytes()
    site.hits.clear()
    same = run(site, dataset, refresh=True)
    assert (same.new, same.vanished, site.unchanged) == (0, 0, before.pages)
    assert dataset.url_manifest.read_bytes() == text

    site.pages["/album3.html"] = page("/3-0.jpg", "/fresh.jpg", "/shared1.jpg")  # 3-1 … 3-3 gone
    del site.pages["/slide5.html"]  # and with it big5
    after = run(site, dataset, refresh=True)
    assert (after.new, after.vanished, after.pages) == (1, 4, before.pages - 1)
    assert (after.urls, after.failed) == (before.urls + 1, 0)
    assert dataset.url_manifest.read_bytes().startswith(text)
    assert rows_of(dataset)[-1]["url"] == f"{site.url}/fresh.jpg"
    events = [row for row in read_jsonl(dataset.event_log) if row["event"] == "page vanished"]
    assert [row["facts"]["url"] for row in events] == [f"{site.url}/slide5.html"]

    fill(site)
    back = run(site, dataset, refresh=True)
    assert (back.new, back.vanished, back.urls) == (0, 1, after.urls)  # fresh.jpg


def test_a_killed_refresh_goes_on(site: Site, tmp_path: Path) -> None:
    fill(site)
    killed = DatasetPaths("killed", tmp_path)
    run(site, killed)
    for n in range(0, 24, 5):
        site.pages[f"/album{n}.html"] = page(f"/new{n}.jpg", follow=(f"/slide{n}.html",))
    del site.pages["/slide3.html"]
    undisturbed = DatasetPaths("undisturbed", tmp_path)
    shutil.copytree(killed.manifest_dir, undisturbed.manifest_dir)
    shutil.copytree(killed.data_dir, undisturbed.data_dir)
    expected = run(site, undisturbed, refresh=True)
    assert (expected.new, expected.vanished) == (
        5,
        11 + 1,
    )  # their own pictures, and the one behind slide3

    site.hits.clear()
    site.delay = 0.1
    kills = 0
    while True:
        before = sum(site.hits.values())
        child = start_child(site, tmp_path, refresh=True)
        while child.poll() is None and sum(site.hits.values()) - before < 20:
            time.sleep(0.001)
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    assert (child.returncode, kills > 0) == (0, True)
    assert sum(site.hits.values()) <= 51 + kills * MIN_THREADS
    assert rows_of(killed) == rows_of(undisturbed)
    after = run(site, killed)
    assert (after.vanished, after.urls) == (expected.vanished, expected.urls)


def test_an_image_on_two_pages_vanishes_with_the_second(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    site.pages["/album0.html"] = page("/0-0.jpg", follow=("/slide0.html",))
    assert run(site, dataset, refresh=True).vanished == 0
    site.pages["/album1.html"] = page("/1-0.jpg", "/1-1.jpg", follow=("/slide1.html",))
    assert run(site, dataset, refresh=True).vanished == 1


def test_a_changed_recipe_reads_all_pages_again(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    first = run(site, dataset, exclude=["big"])
    site.hits.clear()
    second = run(site, dataset)
    assert second.new == 24
    assert second.urls == first.urls + 24
    assert sum(site.hits.values()) == second.pages


def test_what_pages_say_anew_is_revised_in_place(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    before = list(read_jsonl(dataset.url_manifest))
    assert {tuple(row["labels"]) for row in before} == {()}
    result = run(site, dataset, labels=[{"of": "page_url", "match": "([a-z]+)[0-9]+[.]html"}])
    after = list(read_jsonl(dataset.url_manifest))
    assert (result.new, result.vanished) == (0, 0)
    assert {tuple(row["labels"]) for row in after} == {("album",), ("slide",)}
    assert [{**row, "labels": []} for row in after] == before

    site.pages["/slide0.html"] = '<img src="/big0.jpg" alt="a new title">'
    run(site, dataset, refresh=True, labels=[{"of": "page_url", "match": "([a-z]+)[0-9]+[.]html"}])
    titles = [row["title"] for row in read_jsonl(dataset.url_manifest) if row["title"]]
    assert titles == ["a new title"]
    revised = [
        row["facts"] for row in read_jsonl(dataset.event_log) if row["event"] == "rows revised"
    ]
    assert revised == [{"rows": len(before)}, {"rows": 1}]


def test_bad_pages_are_failures_and_the_crawl_goes_on(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    del site.pages["/album0.html"]
    site.statuses["/album1.html"] = 503
    site.types["/album2.html"] = "application/pdf"
    site.pages["/album4.html"] = "Just a moment."
    result = run(site, dataset)
    assert failures_of(dataset) == {
        f"{site.url}/album0.html": "not_found",
        f"{site.url}/album1.html": "unavailable",
        f"{site.url}/album2.html": "parse_error",
        f"{site.url}/album4.html": "parse_error",
    }
    assert result.failed == 4
    assert result.pages == 51 - 2 * 4  # nothing leads to their slides
    assert f"{site.url}/big5.jpg" in {row["url"] for row in rows_of(dataset)}


def test_retry_mends_pages_and_goes_on_from_them(site: Site, tmp_path: Path) -> None:
    fill(site)
    whole = DatasetPaths("whole", tmp_path)
    run(site, whole)
    dataset = DatasetPaths("d", tmp_path)
    site.statuses = {"/album1.html": 503, "/album2.html": 404, "/album3.html": 500}
    run(site, dataset)
    site.statuses = {"/album2.html": 404}
    site.hits.clear()
    asked = [f"{site.url}/album{n}.html" for n in (1, 2, 7)] + [f"{site.url}/unknown.html"]
    with EventLog(dataset, "retry") as log:
        mended = retry_pages(recipe_of(site), dataset, log, asked)
    assert mended == {f"{site.url}/album1.html", f"{site.url}/album7.html"}  # 7 was never bad
    assert set(site.hits) == {"/album1.html", "/album2.html", "/slide1.html"}
    with EventLog(dataset, "retry") as log:
        assert len(retry_pages(recipe_of(site), dataset, log, failures_of(dataset))) == 2
    site.statuses = {}
    with EventLog(dataset, "retry") as log:
        assert len(retry_pages(recipe_of(site), dataset, log, failures_of(dataset))) == 3
    assert {row["url"] for row in rows_of(dataset)} == {row["url"] for row in rows_of(whole)}


def test_a_start_page_that_failed_is_tried_by_the_next_run(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    site.statuses["/index0.html"] = 503
    assert run(site, dataset).urls == 0
    site.statuses.clear()
    assert run(site, dataset).pages == len(site.pages)


@pytest.mark.slow
def test_a_page_that_is_read_later_is_no_failure_any_more(site: Site, tmp_path: Path) -> None:
    """By the next run (a start page), by one with --refresh, by one of a changed recipe."""
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    site.statuses["/index0.html"] = 503
    run(site, dataset)
    assert read_status(dataset).failed == {"unavailable": 1}
    site.statuses.clear()
    run(site, dataset)
    assert read_status(dataset).failed == {}

    for again in ({"refresh": True}, {"title": "h1"}):
        site.statuses["/album3.html"] = 503
        run(site, dataset, refresh=True)
        run(site, dataset)  # which asks for none but start pages that failed
        assert read_status(dataset).failed == {"unavailable": 1}
        site.statuses.clear()
        run(site, dataset, **again)
        assert read_status(dataset).failed == {}
        assert not unresolved_failures(dataset)


def test_a_failed_page_that_is_gone_later_is_no_failure_any_more(
    site: Site, tmp_path: Path
) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    site.statuses["/album3.html"] = 503
    run(site, dataset, refresh=True)
    assert read_status(dataset).failed == {"unavailable": 1}
    site.statuses["/album3.html"] = 404
    run(site, dataset, refresh=True)
    assert read_status(dataset).failed == {}


def test_a_run_killed_before_it_resolved_a_failure_is_made_up_for(
    site: Site, tmp_path: Path
) -> None:
    fill(site)
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    with EventLog(dataset, "killed") as log:  # its page was read since, but the log does not say so
        log.log_failure(failure("crawl", f"{site.url}/album3.html", "unavailable", status=503))
        log.log_failure(failure("download", f"{site.url}/album3.html", "truncated"))
    before = site.hits.copy()
    run(site, dataset)
    assert site.hits == before
    assert [stage for stage, _ in unresolved_failures(dataset)] == ["download"]
    run(site, dataset)
    assert [row["kind"] for row in read_jsonl(dataset.failure_log)].count("resolved") == 1


def test_limits_stop_and_a_higher_limit_goes_on(site: Site, tmp_path: Path) -> None:
    fill(site)
    whole, dataset = DatasetPaths("whole", tmp_path), DatasetPaths("d", tmp_path)
    run(site, whole)
    site.hits.clear()
    few = run(site, dataset, max_pages=10)
    assert (few.pages, sum(site.hits.values())) == (10, 10)
    some = run(site, dataset, max_pages=40, max_images=30)
    assert some.urls == 30
    assert run(site, dataset, max_pages=40, max_images=30).new == 0
    run(site, dataset)
    assert rows_of(dataset) == rows_of(whole)
    assert set(site.hits.values()) == {1}


def test_depth_is_limited(site: Site, tmp_path: Path) -> None:
    fill(site)
    assert run(site, DatasetPaths("d1", tmp_path), max_depth=1).pages == 3 + 24
    assert run(site, DatasetPaths("d0", tmp_path), max_depth=0).pages == 3


def test_pages_that_opt_out_are_left_alone(site: Site, tmp_path: Path) -> None:
    fill(site)
    site.pages["/album1.html"] = '<meta name="robots" content="noai"><img src="/no.jpg">'
    dataset = DatasetPaths("d", tmp_path)
    run(site, dataset)
    assert failures_of(dataset) == {f"{site.url}/album1.html": "opt_out"}
    assert not any(row["url"].endswith("no.jpg") for row in rows_of(dataset))


def test_pages_with_nothing_are_told_with_the_reason(site: Site, tmp_path: Path) -> None:
    site.pages["/index0.html"] = page("{{ shell.image }}", follow=("/a.html", "/b.html"))
    site.pages["/a.html"] = page("data:image/gif;base64,R0lGODlhAQABAAAAACw=")
    site.pages["/b.html"] = page("/b.jpg")
    dataset = DatasetPaths("d", tmp_path)
    assert run(site, dataset).urls == 1
    told = {
        row["facts"]["url"].removeprefix(site.url): row["facts"]["reasons"]
        for row in read_jsonl(dataset.event_log)
    }
    assert told == {"/index0.html": {"template": 1}, "/a.html": {"data_uri": 1}}


def test_a_slow_host_does_not_hold_up_the_others(site: Site, tmp_path: Path) -> None:
    mine = [f"/own{n}.html" for n in range(12)]
    with running() as slow:
        foreign = [f"{slow.url}/slow{n}.html" for n in range(6)]
        site.pages = {url: page(f"{url}.jpg") for url in mine}
        site.pages["/index0.html"] = page(follow=(*foreign, *mine))
        slow.pages = {f"/slow{n}.html": page(f"/slow{n}.jpg") for n in range(6)}
        done = threading.Event()
        site.before_answer = lambda: done.set() if len(site.hits) == 13 else None
        slow.before_answer = lambda: done.wait(20) or slow.pages.clear()  # too late: gone
        recipe = recipe_of(site, offsite=True)
        recipe = replace(recipe, politeness=replace(recipe.politeness, concurrency=2))
        dataset = DatasetPaths("d", tmp_path)
        with EventLog(dataset, "test") as log:
            result = crawl(recipe, dataset, log)
    assert (result.pages, result.failed) == (19, 0)
    # Whatever came first, the manifest is in the order of the links.
    assert [row["url"][-9:] for row in rows_of(dataset)][:2] == ["slow0.jpg", "slow1.jpg"]


def test_progress_ends_with_all_pages(site: Site, tmp_path: Path) -> None:
    fill(site)
    dataset, reports = DatasetPaths("d", tmp_path), []
    with EventLog(dataset, "test", on_progress=[reports.append]) as log:
        crawl(recipe_of(site), dataset, log)
    assert (reports[-1].done, reports[-1].total, reports[-1].unit) == (51, 51, "pages")
    assert [one.done for one in reports] == sorted(one.done for one in reports)


def test_a_page_has_a_limit_of_its_own_and_a_sitemap_a_larger_one(
    site: Site, tmp_path: Path
) -> None:
    """Both are longer than what the recipe allows a page; the sitemap is no page."""
    padding = "<!--" + "x" * 5000 + "-->"
    site.pages["/map.xml"] = (
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{padding}'
        f"<url><loc>{site.url}/small.html</loc></url><url><loc>{site.url}/big.html</loc></url>"
        "</urlset>"
    )
    site.pages["/small.html"] = page("/a.jpg")
    site.pages["/big.html"] = page("/b.jpg") + padding
    dataset = DatasetPaths("limits", tmp_path)
    source = {"kind": "sitemap", "start": [f"{site.url}/map.xml"], "image": "img"}
    rules = {"allow_private": True, "rate": 5000, "attempts": 1, "max_page_bytes": 4000}
    recipe = parse_config(Recipe, {"source": source, "politeness": rules}, "test")
    with EventLog(dataset, "test") as log:
        crawl(recipe, dataset, log)
    assert [row["url"] for row in rows_of(dataset)] == [f"{site.url}/a.jpg"]
    assert failures_of(dataset) == {f"{site.url}/big.html": "too_large"}

"""A crawl over sites, files and disks that misbehave: one failure each, and the others arrive."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl import stage as crawl_stage
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import crawl, retry_pages
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.recipe import Recipe
from pipeline.sources import PageResult, html, json_api
from tests.helpers.static_site import QuietServer

Answer = Callable[[str], str | bytes | None]


class Site:
    """A loopback site that answers what `answer` says of a path, with 404 for None."""

    def __init__(self, answer: Answer) -> None:
        self.hits: Counter[str] = Counter()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                policy = self.path.startswith("/.well-known/")
                if not policy:
                    site.hits[self.path] += 1
                body = None if policy else answer(self.path)
                data = body.encode() if isinstance(body, str) else body or b""
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(answer: Answer) -> Iterator[Site]:
    site = Site(answer)
    thread = threading.Thread(target=site.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        thread.join()
        site.server.server_close()


POLITENESS = {"allow_private": True, "rate": 5000, "obey_robots": False, "attempts": 1}


def recipe_of(**source: Any) -> Recipe:
    return parse_config(Recipe, {"source": source, "politeness": POLITENESS}, "test")


def run(dataset: DatasetPaths, refresh: bool = False, **source: Any) -> CrawlResult:
    with EventLog(dataset, "test") as log:
        return crawl(recipe_of(**source), dataset, log, refresh=refresh)


def rows_of(dataset: DatasetPaths) -> list[dict[str, Any]]:
    return list(read_jsonl(dataset.url_manifest))


def failures_of(dataset: DatasetPaths) -> list[dict[str, Any]]:
    return list(read_jsonl(dataset.failure_log))


def facts_of(dataset: DatasetPaths, event: str) -> list[dict[str, Any]]:
    return [row["facts"] for row in read_jsonl(dataset.event_log) if row["event"] == event]


# text


def test_lone_surrogates_and_control_characters_of_an_api(tmp_path: Path) -> None:
    items = [
        {"image": "/a.jpg", "title": "\ud83d", "tags": ["x\x00y", "\udfff"], "by": "\x1b[31mred"},
        {"image": "/b.jpg", "title": "good", "tags": ["t"], "by": "me"},
        {"image": "/c\ud83d.jpg", "title": "x" * 10_000_000},
    ]
    body = json.dumps({"items": items, "next": "/2?q=\ud83d"})
    dataset = DatasetPaths("d", tmp_path)
    with serving(lambda path: body if path == "/api" else None) as site:
        run(
            dataset, kind="json", start=[f"{site.url}/api"], items="items", image="media.image",
            title="media.title", labels=["media.tags"], attribution="media.by",
            next={"by": "url", "value": "next"},
        )  # fmt: skip
    first, second, third = rows_of(dataset)
    assert (first["title"], first["labels"]) == ("\ufffd", ["x\ufffdy", "\ufffd"])
    assert first["attribution"] == "\ufffd[31mred"
    assert (second["title"], second["labels"], second["attribution"]) == ("good", ["t"], "me")
    assert len(third["title"]) == 1000
    for path in (dataset.url_manifest, dataset.event_log, dataset.failure_log):
        assert "\\ud8" not in path.read_text(encoding="utf-8")


# pages and links


def test_links_that_are_no_addresses_and_images_of_good_neighbours(tmp_path: Path) -> None:
    links = ["http://a..example/x", "http://[bad", "http://[::1", "http://a.example:99999/", "//",
             "http://\ufffd\ufffd/", "/good"]  # fmt: skip
    start = "".join(f'<a class=f href="{link}">x</a>' for link in links)
    pages = {"/": start, "/good": "<img src='/good.jpg'>"}
    dataset = DatasetPaths("d", tmp_path)
    with serving(pages.get) as site:
        run(dataset, kind="html", start=[f"{site.url}/"], follow=[".f"], offsite=True)
    assert [row["url"] for row in rows_of(dataset)] == [f"{site.url}/good.jpg"]
    assert all(row["kind"] != "internal" for row in failures_of(dataset))


def test_an_address_in_the_journal_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    with serving({"/": "<img src='/a.jpg'>"}.get) as site:
        run(dataset, kind="html", start=[f"{site.url}/"])
        with sqlite3.connect(dataset.crawl_state) as db:
            db.executemany(
                "INSERT INTO pages (url, depth, context, state) VALUES (?, 0, '{}', 'new')",
                [("http://[bad",), ("http://a..example/",), ("nonsense",)],
            )
        db.close()
        assert run(dataset, kind="html", start=[f"{site.url}/"]).failed == 3
    assert {row["kind"] for row in failures_of(dataset)} <= {"bad_url", "dns"}
    assert {row["url"] for row in failures_of(dataset)} == {
        "http://[bad", "http://a..example/", "nonsense",
    }  # fmt: skip


def test_an_error_of_a_parser_is_internal_and_the_next_page_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = html.parse

    def failing(config: Any, page: Any) -> PageResult:
        if page.url.endswith("/bad"):
            raise KeyError("an error of ours")
        return parse(config, page)

    adapter = crawl_stage.SOURCES["html"]
    monkeypatch.setitem(
        crawl_stage.SOURCES, "html", type(adapter)(adapter.config, adapter.start, failing)
    )
    start = "<a class=f href='/bad'></a><a class=f href='/good'></a>"
    dataset = DatasetPaths("d", tmp_path)
    with serving({"/": start, "/bad": "<p>", "/good": "<img src='/g.jpg'>"}.get) as site:
        result = run(dataset, kind="html", start=[f"{site.url}/"], follow=[".f"])
    assert (result.urls, result.failed) == (1, 1)
    (failed,) = failures_of(dataset)
    assert (failed["kind"], failed["url"]) == ("internal", f"{site.url}/bad")
    assert "an error of ours" in failed["detail"]
    assert "in failing" in failed["detail"]


def test_an_error_in_one_entry_is_internal_and_its_neighbours_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = json_api._describe

    def failing(config: Any, page: Any, scope: Any, url: str) -> Any:
        if url.endswith("1.jpg"):
            raise AttributeError("an error of ours")
        return describe(config, page, scope, url)

    monkeypatch.setattr(json_api, "_describe", failing)
    body = json.dumps([{"u": f"/{n}.jpg"} for n in range(3)])
    dataset, source = DatasetPaths("d", tmp_path), {"kind": "json", "image": "media.u"}
    with serving(lambda _: body) as site:
        start = [f"{site.url}/api"]
        result = run(dataset, start=start, **source)
        assert [row["url"][-5:] for row in rows_of(dataset)] == ["0.jpg", "2.jpg"]
        assert result.failed == 1
        (failed,) = failures_of(dataset)
        assert failed["kind"] == "internal"
        assert "an error of ours" in failed["detail"]
        monkeypatch.setattr(json_api, "_describe", describe)  # as if a later version had mended it
        with EventLog(dataset, "test") as log:
            recipe = recipe_of(start=start, **source)
            assert retry_pages(recipe, dataset, log, start) == set(start)
    assert len(rows_of(dataset)) == 3


# lists that never end


def endless(path: str) -> str:
    """A calendar: each month leads to the next, and to a day page that is empty."""
    number = int(path.rpartition("=")[2]) if "=" in path else 0
    logo = "<img src='/logo.png'>"
    if path.startswith("/day"):
        return logo
    return (
        f"{logo}<a rel=next href='/cal?month={number + 1}'>n</a>"
        f"<a class=f href='/day?sid={number}'>d</a>"
    )


@pytest.mark.parametrize("follow", [[], [".f"]])
def test_a_calendar_without_end(tmp_path: Path, follow: list[str]) -> None:
    dataset = DatasetPaths("d", tmp_path)
    source = {"kind": "html", "next": "[rel=next]", "follow": follow}
    with serving(endless) as site:
        start = [f"{site.url}/cal"]
        run(dataset, start=start, max_unproductive_pages=20, **source)
        months = [path for path in site.hits if path.startswith("/cal")]
        assert 20 <= len(months) <= 23
        assert len(rows_of(dataset)) == 1
        (facts,) = facts_of(
            dataset, "list not followed further: its last pages brought no new image"
        )
        assert facts["limit"] == "source.max_unproductive_pages = 20"
        assert "/cal?month=" in facts["first"]
        # A higher limit reads on.
        run(dataset, start=start, max_unproductive_pages=30, **source)
        assert 30 <= len([path for path in site.hits if path.startswith("/cal")]) <= 33


def test_a_cursor_without_end(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)

    def answer(path: str) -> str:
        number = int(path.rpartition("=")[2]) if "=" in path else 0
        return json.dumps({"items": [{"u": "/same.jpg"}], "cursor": number + 1})

    with serving(answer) as site:
        run(
            dataset, kind="json", start=[f"{site.url}/api"], items="items", image="media.u",
            next={"by": "cursor", "value": "cursor", "parameter": "c"},
        )  # fmt: skip
    assert 50 <= sum(site.hits.values()) <= 53
    assert len(rows_of(dataset)) == 1


@pytest.mark.slow
def test_long_lists_that_bring_images_are_followed_to_their_end(tmp_path: Path) -> None:
    """Only the pages that the list leads to have images, and some stretches have none."""
    pages = {}
    for n in range(60):
        links = f"<a class=f href='/album{n}'></a>" if n % 7 == 0 else ""
        pages[f"/list{n}"] = f"{links}<a rel=next href='/list{n + 1}'></a>"
        pages[f"/album{n}"] = f"<a class=f href='/slide{n}'></a>"
        pages[f"/slide{n}"] = f"<img src='/{n}.jpg'>"
    dataset, again = DatasetPaths("d", tmp_path), DatasetPaths("again", tmp_path)
    source: dict[str, Any] = {
        "kind": "html", "next": "[rel=next]", "follow": [".f"], "max_unproductive_pages": 10,
    }  # fmt: skip
    with serving(pages.get) as site:
        source["start"] = [f"{site.url}/list0"]
        assert run(dataset, **source).urls == 9
        # Nor is it cut when the images are known already: a lost journal, a refresh.
        for path in dataset.data_dir.glob("crawl.sqlite*"):
            path.unlink()
        site.hits.clear()
        assert run(dataset, **source).urls == 9
        assert site.hits["/list59"] == 1
        site.hits.clear()
        assert run(dataset, refresh=True, **source).urls == 9
        assert site.hits["/list59"] == 1
        run(again, **{**source, "max_unproductive_pages": 3})
        assert len(rows_of(again)) < 9


def test_a_chain_of_sitemap_indexes_is_as_deep_as_it_is_long(tmp_path: Path) -> None:
    def answer(path: str) -> str:
        number = int(path.strip("/i.xml") or 0)
        return f"<sitemapindex><sitemap><loc>/i{number + 1}.xml</loc></sitemap></sitemapindex>"

    dataset = DatasetPaths("d", tmp_path)
    with serving(answer) as site:
        run(dataset, kind="sitemap", start=[f"{site.url}/i0.xml"], max_depth=4)
    assert len(site.hits) == 6  # the start, the one it names, and four steps
    (facts,) = facts_of(dataset, "links deeper than max_depth not followed")
    assert facts == {"links": 1, "first": f"{site.url}/i6.xml", "limit": "source.max_depth = 4"}


def test_sitemaps_in_a_circle(tmp_path: Path) -> None:
    def answer(path: str) -> str:
        other = "/a.xml" if path == "/b.xml" else "/b.xml"
        locations = "".join(f"<sitemap><loc>{one}</loc></sitemap>" for one in (path, other))
        return f"<sitemapindex>{locations}</sitemapindex>"

    with serving(answer) as site:
        run(DatasetPaths("d", tmp_path), kind="sitemap", start=[f"{site.url}/a.xml"])
    assert site.hits == {"/a.xml": 1, "/b.xml": 1}


# messages


def test_why_nothing_was_found(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    pages = {
        "/": "<a class=f href='/script'></a><a class=f href='/gone'></a><a class=f href='/a'></a>",
        "/script": "<img src='{{ image.url }}'>",
        "/a": "<p>nothing</p>",
    }
    with serving(pages.get) as site:
        run(dataset, kind="html", start=[f"{site.url}/"], follow=[".f"])
    (facts,) = facts_of(dataset, "no image found")
    assert "3 of 4 pages could be read" in facts["why"]
    assert f"1 failed with not_found, first {site.url}/gone" in facts["why"]
    assert "template: scripts build the page" in facts["why"]
    assert "nothing_selected: no element fits" in facts["why"]


def test_the_pages_that_could_be_read_are_those_of_this_run(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    with serving({"/a": "<p>nothing</p>", "/b": "<p>nothing</p>"}.get) as site:
        for _ in range(2):  # the second visits only the start page that failed
            run(dataset, kind="html", start=[f"{site.url}/{name}" for name in ("a", "b", "gone")])
    first, second = facts_of(dataset, "no image found")
    assert "2 of 3 pages could be read" in first["why"]
    assert "0 of 1 page could be read" in second["why"]


def test_lines_of_a_list_that_could_not_be_read_are_told(tmp_path: Path) -> None:
    text = '{"url": "http://a.example/1.jpg"}\n{broken\n5\n{"url": "http://a.example/2.jpg"}\n'
    dataset = DatasetPaths("d", tmp_path)
    with serving({"/a.jsonl": text}.get) as site:
        assert run(dataset, kind="list", start=[f"{site.url}/a.jsonl"]).urls == 2
    (facts,) = facts_of(dataset, "page partly skipped")
    assert facts["reasons"] == {"bad_line": 2}
    assert facts["examples"] == {"bad_line": "{broken\n"}


def test_a_run_that_requests_nothing_says_so(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    pages = {"/": "<img src='/a.jpg'><img src='/b.jpg'><a class=f href='/gone'></a>"}
    with serving(pages.get) as site:
        source: dict[str, Any] = {"kind": "html", "start": [f"{site.url}/"], "follow": [".f"]}
        run(dataset, **source)
        assert facts_of(dataset, "no page requested") == []
        run(dataset, **source)
        (facts,) = facts_of(dataset, "no page requested")
        assert "crawl --refresh visits them again" in facts["why"]
        assert "1 failed, and retry visits those" in facts["why"]
        run(dataset, refresh=True, **source)
        assert len(facts_of(dataset, "no page requested")) == 1
        other = DatasetPaths("other", tmp_path)
        run(other, max_images=1, **source)
        run(other, max_images=1, **source)
    (facts,) = facts_of(other, "no page requested")
    assert "1 page in the queue" in facts["why"]


# the disk


def command(root: Path, recipe: Path, limit_kb: int | None = None) -> tuple[int, str]:
    """Exit status and output of a crawl in a process of its own."""
    shell = ["sh", "-c", f'ulimit -f {limit_kb}; exec "$@"', "sh"] if limit_kb else []
    done = subprocess.run(
        [*shell, sys.executable, "-m", "pipeline", "crawl", str(recipe), "--root", str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def list_recipe(folder: Path, rows: int) -> Path:
    with (folder / "urls.jsonl").open("w") as file:
        for n in range(rows):
            file.write(json.dumps({"url": f"http://a.example/{n}.jpg", "title": "x" * 60}) + "\n")
    recipe = folder / "r.toml"
    recipe.write_text(f'[source]\nkind = "list"\nstart = ["{folder / "urls.jsonl"}"]\n')
    return recipe


def check_kept(root: Path, recipe: Path, rows: int) -> None:
    """The same command, with room, ends with every row once."""
    code, said = command(root, recipe)
    assert code == 0, said
    keys = [row["key"] for row in rows_of(DatasetPaths("r", root))]
    assert len(keys) == len(set(keys)) == rows


@pytest.mark.parametrize("size", ["100k", "2m"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, size: str) -> None:
    disk, recipe = tmp_path / "disk", list_recipe(tmp_path, 12_000)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs takes root")
    try:
        code, said = command(disk, recipe)
        assert code == 2
        assert "no space left on the disk; free some and run the same command again" in said
        assert "Traceback" not in said
        assert "remove it" not in said
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        check_kept(disk, recipe, 12_000)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("limit_kb", [40, 200])
def test_a_limit_on_the_size_of_files(tmp_path: Path, limit_kb: int) -> None:
    recipe = list_recipe(tmp_path, 6000)
    code, said = command(tmp_path, recipe, limit_kb)
    assert code == 2
    assert "run the same command again" in said
    assert "remove it" not in said
    assert "Traceback" not in said
    check_kept(tmp_path, recipe, 6000)


def test_a_journal_that_another_program_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    path.write_text("http://a.example/1.jpg\n")
    run(dataset, kind="list", start=[str(path)])
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **kw: connect(*args, **{**kw, "timeout": 0.05})
    )
    holder = connect(dataset.crawl_state, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"crawl.sqlite: database is locked: another program"):
        run(dataset, kind="list", start=[str(path)])
    holder.execute("ROLLBACK")
    holder.close()
    run(dataset, kind="list", start=[str(path)])


def test_only_a_damaged_journal_is_to_be_removed_and_the_manifest_stays(tmp_path: Path) -> None:
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    path.write_text("".join(f"http://a.example/{n}.jpg\n" for n in range(3000)))
    run(dataset, kind="list", start=[str(path)])
    before = dataset.url_manifest.read_bytes()
    data = bytearray(dataset.crawl_state.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    dataset.crawl_state.write_bytes(data)
    with pytest.raises(UserError, match=r"crawl.sqlite: .*; remove it and run the same command"):
        run(dataset, kind="list", start=[str(path)])
    dataset.crawl_state.unlink()
    assert run(dataset, kind="list", start=[str(path)]).urls == 3000
    assert dataset.url_manifest.read_bytes() == before


# the manifest


DAMAGED = [
    b"\x00" * 40, b"\xff\xfe{}", b"[1]", b"3", b'{"key": "0123456789abcdef"}', b'{"url": 3}',
    b'{"url": ""}', b'{"url": "http://a.example/x.jpg", "title": {"a": 1}}',
    b'{"url": "http://a.example/x.jpg", "labels": [[1]]}',
    b'{"url": "http://a.example/x.jpg", "boxes": [[1, 2]]}',
    b'{"url": "http://a.example/x.jpg", "boxes": [[0, 0, NaN, 1]]}', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_of_the_manifest_is_named(tmp_path: Path, line: bytes) -> None:
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    path.write_text("http://a.example/1.jpg\nhttp://a.example/2.jpg\n")
    run(dataset, kind="list", start=[str(path)])
    first, second = dataset.url_manifest.read_bytes().splitlines(keepends=True)
    dataset.url_manifest.write_bytes(first + line + b"\n" + second)
    with pytest.raises(UserError, match=r"urls\.jsonl:2: .*correct or delete this line"):
        run(dataset, kind="list", start=[str(path)])
    dataset.url_manifest.write_bytes(first + second)
    assert run(dataset, kind="list", start=[str(path)]).urls == 2


def changed_list(folder: Path) -> tuple[DatasetPaths, dict[str, Any]]:
    """A crawled list whose titles have changed since."""
    path, dataset = folder / "urls.csv", DatasetPaths("d", folder)
    source = {"kind": "list", "start": [str(path)]}
    path.write_text("url,title\nhttp://a.example/1.jpg,one\nhttp://a.example/2.jpg,two\n")
    run(dataset, **source)
    path.write_text("url,title\nhttp://a.example/1.jpg,ONE\nhttp://a.example/2.jpg,TWO\n")
    return dataset, source


def test_a_blank_line_of_the_manifest_is_ignored(tmp_path: Path) -> None:
    dataset, source = changed_list(tmp_path)
    with dataset.url_manifest.open("ab") as file:
        file.write(b"\n")
    run(dataset, refresh=True, **source)
    assert [row["title"] for row in rows_of(dataset)] == ["ONE", "TWO"]


def test_a_disk_that_fills_up_while_rows_change_is_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    dataset, source = changed_list(tmp_path)
    monkeypatch.setattr("pipeline.crawl.image_index.revised_line", full)
    with pytest.raises(OSError, match="No space left"):
        run(dataset, refresh=True, **source)
    monkeypatch.undo()
    run(dataset, refresh=True, **source)
    assert [row["title"] for row in rows_of(dataset)] == ["ONE", "TWO"]


def test_rows_twice_and_keys_that_do_not_match(tmp_path: Path) -> None:
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    path.write_text("http://a.example/1.jpg\nhttp://a.example/2.jpg\n")
    run(dataset, kind="list", start=[str(path)])
    text = dataset.url_manifest.read_text()
    edited = text + text.splitlines(keepends=True)[0]  # twice
    dataset.url_manifest.write_text(edited.replace('"key": "', '"key": "zz', 1))
    path.write_text("http://a.example/1.jpg\nhttp://a.example/2.jpg\nhttp://a.example/3.jpg\n")
    assert run(dataset, kind="list", start=[str(path)], refresh=True).new == 1

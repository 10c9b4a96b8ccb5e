"""Folders and archives with names, links and files that are not as they should be."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import crawl
from pipeline.errors import Failure, UserError
from pipeline.events import EventLog
from pipeline.recipe import Recipe
from pipeline.sources import Page
from pipeline.sources.folder import FolderSource, local_files, parse, start
from pipeline.web.local_files import LocalFileReader, file_url
from pipeline.web.responses import Response


def recipe_of(root: Path, **source: Any) -> Recipe:
    values = {"kind": "folder", "start": [str(root)], **source}
    return parse_config(Recipe, {"source": values}, "test")


def run(dataset: DatasetPaths, root: Path, **source: Any) -> CrawlResult:
    with EventLog(dataset, "test") as log:
        return crawl(recipe_of(root, **source), dataset, log)


def rows_of(dataset: DatasetPaths) -> dict[str, dict[str, Any]]:
    return {row["title"]: row for row in read_jsonl(dataset.url_manifest)}


def facts_of(dataset: DatasetPaths) -> dict[str, Any]:
    (event,) = [row for row in read_jsonl(dataset.event_log) if "page" in row["event"]]
    facts: dict[str, Any] = event["facts"]
    return facts


def body_of(root: Path, url: str, **source: Any) -> bytes | str:
    """What is read behind a URL, or the kind of failure."""
    files = local_files(recipe_of(root, **source).source, 1000)
    assert files is not None
    answer = files.get(url, stage="download")
    files.close()
    return answer.body if isinstance(answer, Response) else answer.kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(b"good")
    return folder


def test_names_of_any_bytes(root: Path, tmp_path: Path) -> None:
    names = [
        b"a\xff\xfe.jpg",
        b"new\nline.jpg",
        b"esc\x1b[31m.png",
        b"%2e%2e#?.jpg",
        b"\xe2\x82.jpg",
    ]
    names += [b"x" * 251 + b".jpg", "é ü.jpg".encode(), b" .jpg"]
    inner = os.fsencode(root) + b"/fol\xffder"
    Path(os.fsdecode(inner)).mkdir()
    for number, name in enumerate(names):
        Path(os.fsdecode(inner + b"/" + name)).write_bytes(b"%d" % number)
    dataset = DatasetPaths("d", tmp_path)
    result = run(dataset, root)
    assert (result.urls, result.failed) == (len(names) + 1, 0)
    rows = [row for row in rows_of(dataset).values() if row["labels"]]
    assert {tuple(row["labels"]) for row in rows} == {("fol\ufffdder",)}
    assert {row["title"] for row in rows} >= {"a\ufffd\ufffd", "new line", "esc\ufffd[31m", "é ü"}
    read = {body_of(root, row["url"]) for row in rows}
    assert read == {b"%d" % number for number in range(len(names))}


def test_links_out_of_the_folder(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"outside")
    (root / "file.jpg").symlink_to(outside / "a.jpg")
    (root / "folder").symlink_to(outside)
    dataset = DatasetPaths("d", tmp_path)
    assert run(dataset, root).urls == 1
    facts = facts_of(dataset)
    assert facts["reasons"] == {"outside_link": 2}
    assert " -> " in facts["examples"]["outside_link"]
    assert str(outside) in facts["examples"]["outside_link"]
    allowed = DatasetPaths("allowed", tmp_path)
    assert run(allowed, root, allow_outside_links=True).urls == 3
    for url in (row["url"] for row in read_jsonl(allowed.url_manifest)):
        assert body_of(root, url, allow_outside_links=True) in (b"good", b"outside")
    url = file_url(root / "folder" / "a.jpg")
    assert body_of(root, url) == "bad_url"
    answer = LocalFileReader([root], 1000).get(url, stage="download")
    assert isinstance(answer, Failure)
    assert "source.allow_outside_links = true" in answer.detail
    # The option opens what links lead to, not what a URL says.
    assert body_of(root, file_url(outside / "a.jpg"), allow_outside_links=True) == "bad_url"
    up = f"{file_url(root)}/../elsewhere/a.jpg"
    assert body_of(root, up, allow_outside_links=True) == "bad_url"


def test_links_in_circles_and_to_nothing(root: Path, tmp_path: Path) -> None:
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "a" / "1.jpg").write_bytes(b"1")
    (root / "b" / "2.jpg").write_bytes(b"2")
    (root / "self").symlink_to(root)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "a" / "to_b").symlink_to(root / "b")
    (root / "b" / "to_a").symlink_to(root / "a")
    dataset = DatasetPaths("d", tmp_path)
    result = run(dataset, root, max_depth=1000)
    assert (result.failed, result.urls) == (0, 5)  # good; 1, 2, and each again behind a link
    events = [row["facts"] for row in read_jsonl(dataset.event_log) if "page" in row["event"]]
    assert events[0]["reasons"] == {"link_loop": 1, "broken_link": 2}
    assert body_of(root, file_url(root / "self.jpg")) == "bad_url"


def test_what_is_no_file_never_blocks(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "fifo.jpg")
    os.mkfifo(root / "fifo.zip")
    (root / "folder.jpg").mkdir()
    (root / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.jpg"))
        dataset = DatasetPaths("d", tmp_path)
        done = threading.Event()

        def work() -> None:
            run(dataset, root)
            for name in ("fifo.jpg", "socket.jpg", "zero.jpg", "folder.jpg"):
                kind = body_of(root, file_url(root / name), allow_outside_links=True)
                assert kind == "wrong_type", name
            assert body_of(root, file_url(root / "fifo.zip", "a.jpg")) == "wrong_type"
            done.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert done.wait(200)
    assert list(rows_of(dataset)) == ["good"]
    assert facts_of(dataset)["reasons"] == {"not_a_file": 3, "outside_link": 1}
    for kind in ("folder", "list"):
        with pytest.raises(UserError, match=r"fifo\.jpg: n(ot a regular|either a folder)"):
            build_and_crawl(tmp_path, kind, root / "fifo.jpg")


def build_and_crawl(folder: Path, kind: str, start: Path) -> None:
    recipe = parse_config(Recipe, {"source": {"kind": kind, "start": [str(start)]}}, "test")
    dataset = DatasetPaths(f"{kind}-start", folder)
    with EventLog(dataset, "test") as log:
        crawl(recipe, dataset, log)


def test_names_of_members_in_no_encoding(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(root / "names.zip", "w") as archive:
        archive.writestr("q/XX\u00e9.jpg", b"utf8")
        archive.writestr("plain.jpg", b"plain")
    path = root / "names.zip"
    path.write_bytes(path.read_bytes().replace("XX\u00e9".encode(), b"X\xff\xfe\xe9"))
    dataset = DatasetPaths("d", tmp_path)
    result = run(dataset, root)
    assert (result.urls, result.failed) == (3, 0)
    read = {body_of(root, row["url"]) for row in read_jsonl(dataset.url_manifest)}
    assert read == {b"utf8", b"plain", b"good"}


def test_labels_of_members_with_backslashes_or_an_absolute_path(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(root / "names.zip", "w") as archive:
        for name in ("cones\\rare\\one.jpg", "/two.jpg", "/cones/three.jpg", ".trash\\four.jpg"):
            archive.writestr(name, name.encode())
    dataset = DatasetPaths("d", tmp_path)
    run(dataset, root)
    rows = rows_of(dataset)
    assert {title: row["labels"] for title, row in rows.items() if title != "good"} == {
        "one": ["cones", "rare"], "two": [], "three": ["cones"],
    }  # fmt: skip
    assert body_of(root, rows["one"]["url"]) == b"cones\\rare\\one.jpg"


@pytest.mark.parametrize("cut", [1, 50, 200, "flip"])
def test_damaged_archives_are_one_failure_each(root: Path, tmp_path: Path, cut: int | str) -> None:
    path = root / "bad.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(5):
            archive.writestr(f"{n}.jpg", os.urandom(50))
    data = bytearray(path.read_bytes())
    if isinstance(cut, int):
        path.write_bytes(data[:-cut])
    else:
        data[40:80] = b"\x99" * 40
        path.write_bytes(data)
    dataset = DatasetPaths("d", tmp_path)
    result = run(dataset, root)
    assert "good" in rows_of(dataset)
    kinds = {row["kind"] for row in read_jsonl(dataset.failure_log)}
    assert kinds == (set() if cut == "flip" else {"parse_error"})
    if cut == "flip":
        assert result.urls == 6
        read = [body_of(root, row["url"]) for row in read_jsonl(dataset.url_manifest)]
        assert read.count("undecodable") == 1


def test_a_file_that_vanishes_after_it_was_listed(root: Path, tmp_path: Path) -> None:
    (root / "deep").mkdir()
    (root / "deep" / "a.jpg").write_bytes(b"a")
    dataset = DatasetPaths("d", tmp_path)
    run(dataset, root)
    urls = {title: row["url"] for title, row in rows_of(dataset).items()}
    (root / "deep" / "a.jpg").unlink()
    (root / "deep").rmdir()
    assert body_of(root, urls["a"]) == "not_found"
    with EventLog(dataset, "test") as log:
        result = crawl(recipe_of(root), dataset, log, refresh=True)
    assert (result.failed, result.vanished, result.urls) == (0, 1, 2)


@contextmanager
def as_another_user() -> Iterator[None]:
    """Do without root's rights, which open everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "open").mkdir()
        (root / "open" / "a.jpg").write_bytes(b"a")
        (root / "shut").mkdir(mode=0o000)
        config = FolderSource(start=(root,))
        with as_another_user():
            first = parse(config, Page(start(config)[0]))
            results = [parse(config, Page(request)) for request in first.follow]
            assert len(list(results[0].images)) == 1
        assert "Permission denied" in results[1].error
        (root / "shut").chmod(0o700)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "http://[bad", "/nowhere/at/all"])
@pytest.mark.parametrize("kind", ["folder", "list"])
def test_a_start_that_is_none_is_one_line(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(UserError) as error:
        build_and_crawl(tmp_path, kind, Path(name) if "\0" not in name else name)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_urls_that_mean_no_file(root: Path) -> None:
    for url in ("file://[bad/x", "file:///a%00b.jpg", "file:///" + "a" * 5000, "file:", "file:///"):
        assert body_of(root, url) == "bad_url", url

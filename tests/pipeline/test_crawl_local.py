"""Folders, archives and lists through the whole crawl, and their files read back."""

import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, image_key, read_jsonl
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import crawl
from pipeline.errors import Failure, UserError
from pipeline.events import Event, EventLog
from pipeline.originals.download import download
from pipeline.recipe import Recipe
from pipeline.sources import url_list as listing
from pipeline.sources.list_options import ListSource
from pipeline.web.local_files import LocalFileReader, file_url
from pipeline.web.responses import Response


def run(dataset: DatasetPaths, refresh: bool = False, **source: Any) -> CrawlResult:
    with EventLog(dataset, "test") as log:
        return crawl(
            parse_config(Recipe, {"source": source}, "test"), dataset, log, refresh=refresh
        )


def rows_of(dataset: DatasetPaths) -> list[dict[str, Any]]:
    return list(read_jsonl(dataset.url_manifest))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "my images"
    for name in ("cones/a.jpg", "cones/b (1).PNG", "cowries/deep/c.webp", "top.jpeg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    for name in ("notes.txt", ".hidden.jpg", ".cache/d.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    with zipfile.ZipFile(root / "cones" / "more.zip", "w") as archive:
        archive.writestr("olive/é 1.jpg", b"zipped")
        archive.writestr("__MACOSX/olive/._e.jpg", b"")
        archive.writestr("read.me", b"")
    return root


def test_a_folder_with_an_archive(images: Path, tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    source = {"kind": "folder", "start": [str(images)], "license": "CC0"}
    result = run(dataset, **source)
    found = {row["title"]: row for row in rows_of(dataset)}
    assert {title: row["labels"] for title, row in found.items()} == {
        "a": ["cones"],
        "b (1)": ["cones"],
        "c": ["cowries", "deep"],
        "top": [],
        "é 1": ["cones", "olive"],
    }
    assert result.urls == 5
    assert {row["license"] for row in found.values()} == {"CC0"}
    files = LocalFileReader([images], 100)
    for title, row in found.items():
        assert row["key"] == image_key(row["url"])
        answer = files.get(row["url"], stage="download")
        assert isinstance(answer, Response)
        expected = b"zipped" if title == "é 1" else f"/{title}.".encode()
        assert expected in b"/" + answer.body
    files.close()

    (images / "cones" / "a.jpg").unlink()
    (images / "cowries" / "e.jpg").write_bytes(b"new")
    after = run(dataset, refresh=True, **source)
    assert (after.new, after.vanished, after.urls) == (1, 1, 6)


def test_a_single_archive(images: Path, tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    run(dataset, kind="folder", start=[str(images / "cones" / "more.zip")])
    assert [row["labels"] for row in rows_of(dataset)] == [["olive"]]
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    bad = run(DatasetPaths("bad", tmp_path), kind="folder", start=[str(tmp_path / "bad.zip")])
    assert (bad.urls, bad.failed) == (0, 1)
    with pytest.raises(UserError, match="folder or archive does not exist"):
        run(DatasetPaths("none", tmp_path), kind="folder", start=[str(tmp_path / "none")])


def test_only_files_of_the_recipe_are_read(images: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    (images / "link.jpg").symlink_to(outside)
    files = LocalFileReader([images], 6)

    def kind(url: str) -> str:
        answer = files.get(url, stage="download")
        assert isinstance(answer, Failure)
        return answer.kind

    assert kind(file_url(outside)) == "bad_url"
    assert kind(file_url(images) + "/../secret.jpg") == "bad_url"
    assert kind(file_url(images / "link.jpg")) == "bad_url"
    assert kind("file:///etc/passwd") == "bad_url"
    assert kind(file_url(images / "gone.jpg")) == "not_found"
    assert kind(file_url(images / "cones" / "more.zip", "gone.jpg")) == "not_found"
    assert kind(file_url(images / "notes.txt", "x.jpg")) == "undecodable"
    assert kind(file_url(images / "cones" / "a.jpg")) == "too_large"
    files.close()


def test_downloaded_from_a_folder_and_its_archive(tmp_path: Path) -> None:
    root, dataset = tmp_path / "images", DatasetPaths("d", tmp_path)
    (root / "cones").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(20):
        pixels = rng.integers(0, 255, (80, 90, 3), np.uint8)
        Image.fromarray(pixels).save(root / "cones" / f"{n}.png")
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.write(root / "cones" / "7.png", "inside/other.png")
        archive.writestr("inside/page.jpg", b"<!DOCTYPE html><html><body>Not found</body></html>")
    source = {"kind": "folder", "start": [str(root)]}
    run(dataset, **source)
    (root / "cones" / "3.png").unlink()
    with EventLog(dataset, "test") as log:
        result = download(parse_config(Recipe, {"source": source}, "test"), dataset, log)
    assert (result.images, result.failed) == (20, 2)
    kinds = {row["url"].rsplit("/")[-1]: row["kind"] for row in read_jsonl(dataset.failure_log)}
    assert kinds == {"3.png": "not_found", "page.jpg": "html_page"}
    (tar,) = dataset.originals_dir.glob("*.tar")
    with tarfile.open(tar) as file:
        stored = [file.extractfile(one).read() for one in file if one.name.endswith(".png")]  # type: ignore[union-attr]
    expected = [path.read_bytes() for path in (root / "cones").iterdir()]
    assert sorted(stored) == sorted([*expected, (root / "cones" / "7.png").read_bytes()])


def write_list(path: Path, names: list[str]) -> None:
    path.write_text("".join(f"http://a.example/{name}.jpg\n" for name in names))


def test_a_list_in_utf16_is_read_and_the_crawl_says_so(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    text = 'URL,Boxes\nhttp://a.example/1.jpg,"[[1, 2, 3, 4]]"\nhttp://a.example/2.jpg,[5]\n'
    path.write_text(text, encoding="utf-16")
    dataset = DatasetPaths("listed", tmp_path)
    events: list[Event] = []
    with EventLog(dataset, "run", [events.append]) as log:
        result = crawl(Recipe(source=ListSource(start=(str(path),))), dataset, log)
    assert result.failed == 0
    assert [row.get("boxes") for row in rows_of(dataset)] == [[[1, 2, 3, 4]], None]
    said = str([event.facts for event in events])
    assert "read as UTF-16" in said
    assert "boxes: not four numbers: [5]" in said


def names_of(dataset: DatasetPaths) -> list[str]:
    return [row["url"].rsplit("/")[-1].removesuffix(".jpg") for row in rows_of(dataset)]


def test_a_list_is_read_in_pieces_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "CHUNK_ROWS", 10)
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    names = [f"shell{n}" for n in range(35)]
    write_list(path, [*names, "shell3"])
    source = {"kind": "list", "start": [str(path)]}
    first = run(dataset, **source)
    assert (names_of(dataset), first.pages) == (names, 4)

    # A line more on top and one less in the middle: nothing lost, nothing twice.
    write_list(path, ["fresh", *names[:12], *names[13:]])
    after = run(dataset, refresh=True, **source)
    assert (after.new, after.vanished) == (1, 1)
    assert names_of(dataset) == [*names, "fresh"]

    write_list(path, names[:3])
    os.utime(path, ns=(1, 1))
    short = run(dataset, refresh=True, **source)
    assert (short.new, short.vanished) == (0, 33)


def test_a_list_stops_at_the_limit_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "CHUNK_ROWS", 10)
    path, dataset = tmp_path / "urls.txt", DatasetPaths("d", tmp_path)
    names = [f"shell{n}" for n in range(35)]
    write_list(path, names)
    assert run(dataset, kind="list", start=[str(path)], max_images=13).urls == 13
    assert names_of(dataset) == names[:13]
    run(dataset, kind="list", start=[str(path)])
    assert names_of(dataset) == names


def test_what_a_list_did_not_give_is_told(tmp_path: Path) -> None:
    path, dataset = tmp_path / "urls.jsonl", DatasetPaths("d", tmp_path)
    path.write_text(json.dumps({"url": "http://a.example/1.jpg"}) + '\n{"url": "x"}\n')
    run(dataset, kind="list", start=[str(path)])
    (event,) = read_jsonl(dataset.event_log)
    assert event["facts"]["reasons"] == {"not_http": 1}

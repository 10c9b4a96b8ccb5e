"""Lists at http addresses: copied to the disk, read in pieces, gzipped, changed or broken."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.results import CrawlResult
from pipeline.crawl.stage import crawl
from pipeline.events import EventLog
from pipeline.recipe import Recipe
from pipeline.sources import url_list as listing
from tests.helpers.faulty_site import FaultySite, Row
from tests.helpers.static_site import QuietHandler, served

POLITE = {"rate": 1000, "allow_private": True, "obey_robots": False, "attempts": 1}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "site").mkdir()
    with served(tmp_path / "site") as url:
        yield url


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHUNK_ROWS", 10)


def run(tmp_path: Path, url: str, refresh: bool = False, **polite: Any) -> CrawlResult:
    values = {"source": {"kind": "list", "start": [url]}, "politeness": {**POLITE, **polite}}
    dataset = DatasetPaths("d", tmp_path)
    with EventLog(dataset, "test") as log:
        return crawl(parse_config(Recipe, values, "test"), dataset, log, refresh=refresh)


def found(tmp_path: Path) -> list[str]:
    return [row["title"] for row in read_jsonl(DatasetPaths("d", tmp_path).url_manifest)]


def failures(tmp_path: Path) -> list[tuple[str, str]]:
    rows = read_jsonl(DatasetPaths("d", tmp_path).failure_log)
    return [(row["url"].rpartition("/")[2], row["kind"]) for row in rows]


def text(start: int, stop: int) -> str:
    rows = (f"http://a.example/{n}.jpg,number {n}\n" for n in range(start, stop))
    return "url,caption\n" + "".join(rows)


def titles(start: int, stop: int) -> list[str]:
    return [f"number {n}" for n in range(start, stop)]


def test_a_list_larger_than_a_page_may_be_is_read_in_pieces(tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a.csv").write_text(text(0, 35))
    result = run(tmp_path, f"{site}/a.csv", max_bytes=100)
    assert (result.urls, result.pages, result.failed) == (35, 4, 0)
    assert found(tmp_path) == titles(0, 35)


def test_a_list_that_has_not_changed_is_not_read_again(tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a.csv").write_text(text(0, 35))
    run(tmp_path, f"{site}/a.csv")
    QuietHandler.statuses.clear()
    assert run(tmp_path, f"{site}/a.csv", refresh=True).new == 0
    assert QuietHandler.statuses == {304: 1}
    assert run(tmp_path, f"{site}/a.csv", refresh=True).vanished == 0


def test_a_list_that_has_changed_tells_what_is_new_and_what_has_vanished(
    tmp_path: Path, site: str
) -> None:
    path = tmp_path / "site" / "a.csv"
    path.write_text(text(0, 35))
    run(tmp_path, f"{site}/a.csv")
    path.write_text(text(5, 15) + text(40, 42).partition("\n")[2])
    # Its time is told in whole seconds.
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))
    result = run(tmp_path, f"{site}/a.csv", refresh=True)
    assert (result.urls, result.new, result.vanished) == (37, 2, 25)


def test_a_gzipped_list_is_read_in_one_go(tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a.csv.gz").write_bytes(gzip.compress(text(0, 35).encode()))
    assert run(tmp_path, f"{site}/a.csv.gz").pages == 1
    assert found(tmp_path) == titles(0, 35)


def test_a_gzipped_list_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"url": "http://a.example/1.jpg", "caption": "one"}\n'))
    run(tmp_path, str(path.parent))
    assert found(tmp_path) == ["one"]


@pytest.mark.slow
def test_what_was_good_of_a_broken_list_stays_and_the_break_is_a_failure(
    tmp_path: Path, site: str
) -> None:
    # More than is written at a time, so that rows come before the break.
    whole = gzip.compress(text(0, 30_000).encode())
    path = tmp_path / "site" / "a.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    stamp = path.stat().st_mtime
    result = run(tmp_path, f"{site}/a.csv.gz")
    assert result.failed == 1
    assert 5000 <= result.urls < 30_000
    assert failures(tmp_path) == [("a.csv.gz", "parse_error")]
    path.write_bytes(whole)
    os.utime(path, (stamp, stamp))  # in the same second: Last-Modified says that nothing changed
    assert run(tmp_path, f"{site}/a.csv.gz").urls == 30_000


def test_parquet_over_http_goes_by_its_row_groups(tmp_path: Path, site: str) -> None:
    urls = [f"http://a.example/{n}.jpg" for n in range(35)]
    table = pyarrow.table({"URL": urls, "TEXT": titles(0, 35)})
    parquet.write_table(table, tmp_path / "site" / "a.parquet", row_group_size=12)
    result = run(tmp_path, f"{site}/a.parquet", max_bytes=100)
    assert (result.urls, result.pages) == (35, 3)
    assert found(tmp_path) == titles(0, 35)


def test_a_list_over_its_limit_is_too_large(tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a.csv").write_text(text(0, 35))
    values = {"kind": "list", "start": [f"{site}/a.csv"], "max_gb": 1e-7}
    dataset = DatasetPaths("d", tmp_path)
    recipe = parse_config(Recipe, {"source": values, "politeness": POLITE}, "test")
    with EventLog(dataset, "test") as log:
        assert crawl(recipe, dataset, log).failed == 1
    assert failures(tmp_path) == [("a.csv", "too_large")]
    assert list((dataset.data_dir / "lists").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "titles_found", "kinds"),
    [
        ("203 Non-Authoritative Information", titles(0, 3), []),
        ("204 No Content", [], [("a.csv", "empty")]),
        ("206 Partial Content", [], [("a.csv", "protocol")]),
    ],
    ids=["203", "204", "206"],
)
def test_a_list_with_another_status_than_200(
    tmp_path: Path, faulty_site: FaultySite, status: str, titles_found: list[str], kinds: list[Any]
) -> None:
    body = b"" if "204" in status else text(0, 3).encode()
    length = -1 if "204" in status else None
    answer = lambda request: request.answer(body, status, length, "text/csv")  # noqa: E731
    faulty_site.rows["/a.csv"] = Row("/a.csv", answer)
    result = run(tmp_path, faulty_site.url("/a.csv"))
    assert result.failed == len(kinds)
    assert found(tmp_path) == titles_found
    assert (failures(tmp_path) if kinds else []) == kinds
    assert len(list((tmp_path / "data" / "d" / "lists").iterdir())) == (not kinds)


def test_a_copy_that_was_removed_is_fetched_again(tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a.csv").write_text(text(0, 35))
    run(tmp_path, f"{site}/a.csv")
    for path in (tmp_path / "data" / "d" / "lists").iterdir():
        path.unlink()
    result = run(tmp_path, f"{site}/a.csv", refresh=True)
    assert (result.urls, result.new, result.vanished) == (35, 0, 0)

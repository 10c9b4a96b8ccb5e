"""Lists whose rows, quotes, lines and types are not as they should be."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from pipeline.config_io import parse_config
from pipeline.sources import CorruptFile, FoundImage, Notes, Page
from pipeline.sources import url_list as listing
from pipeline.sources.list_options import ListSource
from pipeline.sources.url_list import parse, start


def csv_file(folder: Path, lines: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("url,title\n" + "".join(f"{line}\n" for line in lines))
    return path


def numbered(first: int, last: int) -> list[str]:
    return [f"http://a.example/{n}.jpg,x" for n in range(first, last)]


@pytest.mark.parametrize("rows", [50, 12_000])
@pytest.mark.parametrize("piece", [3, 10_000])
def test_an_open_quote_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, piece: int
) -> None:
    monkeypatch.setattr(listing, "CHUNK_ROWS", max(piece, rows // 30))
    bad = 'http://a.example/bad.jpg,"open'
    lines = [*numbered(0, 5), 'http://a.example/5.jpg,"two\nlines"', bad, *numbered(6, rows)]
    found, notes = read_all(csv_file(tmp_path, lines))
    assert [row.url for row in found] == [f"http://a.example/{n}.jpg" for n in range(rows)]
    assert found[5].title == "two lines"
    assert notes == {"bad_line": 1}
    assert "bad.jpg" in notes.examples["bad_line"]


def read_all(path: Path) -> tuple[list[FoundImage], Notes]:
    """All rows of a list, piece by piece."""
    config = parse_config(ListSource, {"kind": "list", "start": [str(path)]}, "test")
    queue, found, notes = start(config), [], Notes()
    while queue:
        result = parse(config, Page(queue.pop(0)))
        assert not result.error
        found += list(result.images)
        queue += result.follow
        notes.merge(result.skipped)
    return found, notes


def test_rows_of_any_types_cost_themselves_alone(tmp_path: Path) -> None:
    rows = [
        '{"url": "http://a.example/1.jpg", "title": "\\ud83d", "labels": ["a", {"b": 1}, 3, null]}',
        '{"url": "http://a.example/2.jpg", "title": {"a": 1}, "license": [1], "labels": NaN}',
        '{"url": 3}', '{"url": {"a": 1}}', '{"url": null, "url": "http://a.example/3.jpg"}',
        '{"url": "http://a.example/4.jpg", "title": ' + "9" * 5000 + "}",
        "[" * 100_000, '{"url": "http://a.example/5.jpg", "title": ' + "[" * 90_000 + "}",
        '{"url": "http://a.example/6.jpg", "title": 1e999, "attribution": Infinity}', "\x00", "[1]",
        '{"url": "http://a.example/7.jpg", "title": "' + "x" * 10_000_000 + '"}',
    ]  # fmt: skip
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(rows))
    found, notes = read_all(path)
    assert [row.url[-5:] for row in found] == [f"{n}.jpg" for n in (1, 2, 3, 4, 6, 7)]
    assert (found[0].title, found[0].labels) == ("\ufffd", ("a", "", "3", ""))
    assert (found[1].title, found[1].license) == ("", "")
    assert len(found[5].title) == 1000
    assert notes == {"not_text": 4, "not_http": 1, "no_url": 1, "bad_line": 4}
    assert notes.bug == ""
    assert "title: {'a': 1}" in notes.examples["not_text"] or "labels" in notes.examples["not_text"]


@pytest.mark.slow
def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"http://a.example/1.jpg\n")
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b"\nhttp://a.example/2.jpg\n")
    tracemalloc.start()
    found, notes = read_all(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.url[-5:] for row in found] == ["1.jpg", "2.jpg"]
    assert notes == {"bad_line": 1}
    assert most < 150 << 20


@pytest.mark.slow
def test_a_list_that_unpacks_to_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"http://a.example/1.jpg\n" + b"x\n" * 2_000_000))
    config = parse_config(
        ListSource, {"kind": "list", "start": [str(path)], "max_gb": 0.001}, "test"
    )
    result = parse(config, Page(start(config)[0]))
    with pytest.raises(CorruptFile, match=r"source\.max_gb = 0\.001 GB"):
        list(result.images)

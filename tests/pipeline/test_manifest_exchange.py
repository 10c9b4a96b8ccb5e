"""The manifest as Parquet, CSV and JSON Lines, there and back, and from other tools."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.contract import DatasetPaths, ManifestRow, image_key, read_jsonl
from pipeline.crawl.manifest_exchange import ManifestImportResult, export_manifest, import_manifest
from pipeline.errors import UserError


def filled(root: Path, count: int = 5) -> DatasetPaths:
    dataset = DatasetPaths("d", root)
    dataset.manifest_dir.mkdir(parents=True)
    with dataset.url_manifest.open("w") as file:
        for n in range(count):
            url = f"http://a.example/{n}.jpg"
            row = ManifestRow(
                image_key(url), url, "http://a.example/", f"shell, {n}", ("a", f"b{n}"), "CC0",
                "me", "2024-01-02T03:04:05Z",
            )  # fmt: skip
            file.write(json.dumps(row.to_json()) + "\n")
    return dataset


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_there_and_back(tmp_path: Path, ending: str) -> None:
    dataset = filled(tmp_path / "one")
    path = tmp_path / f"out.{ending}"
    assert export_manifest(dataset, path) == 5
    other = DatasetPaths("other", tmp_path / "two")
    assert import_manifest(other, path) == ManifestImportResult(5, 5, {})
    assert list(read_jsonl(other.url_manifest)) == list(read_jsonl(dataset.url_manifest))
    assert import_manifest(other, path) == ManifestImportResult(5, 0, {"known": 5})
    assert len(list(read_jsonl(other.url_manifest))) == 5


def test_csv_out(tmp_path: Path) -> None:
    export_manifest(filled(tmp_path), tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("key,url,page,title,labels,license,attribution,found")
    assert '"shell, 0",a|b0,CC0' in lines[1]


def test_parquet_has_the_types_that_others_read(tmp_path: Path) -> None:
    export_manifest(filled(tmp_path), tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.field("url").type == pyarrow.string()
    assert table.schema.field("labels").type == pyarrow.list_(pyarrow.string())
    assert table["title"].to_pylist()[4] == "shell, 4"


def test_lists_of_others_come_in_and_nothing_twice(tmp_path: Path) -> None:
    dataset = filled(tmp_path)
    table = pyarrow.table({
        "URL": ["http://a.example/3.jpg", "http://b.example/1.jpg", "nonsense", None],
        "TEXT": ["known", "new", "", ""],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "laion.parquet")
    result = import_manifest(dataset, tmp_path / "laion.parquet", license="CC-BY")
    assert result == ManifestImportResult(2, 1, {"not_http": 1, "no_url": 1, "known": 1})
    last = list(read_jsonl(dataset.url_manifest))[-1]
    assert (last["url"], last["title"], last["license"]) == (
        "http://b.example/1.jpg",
        "new",
        "CC-BY",
    )


def test_mistakes(tmp_path: Path) -> None:
    dataset = filled(tmp_path)
    with pytest.raises(UserError, match=r"choose from \.parquet"):
        export_manifest(dataset, tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="no such manifest"):
        export_manifest(DatasetPaths("none", tmp_path), tmp_path / "out.csv")
    with pytest.raises(UserError, match="list does not exist"):
        import_manifest(dataset, tmp_path / "none.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="not Parquet"):
        import_manifest(dataset, tmp_path / "bad.parquet")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column of URLs among: a, b"):
        import_manifest(dataset, tmp_path / "bad.csv")


def test_one_bad_row_of_an_exported_manifest_costs_itself_alone(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    lines = [
        '{"url": "http://a.example/1.jpg", "found": "x", "title": "\\ud83d\\u0000"}',
        '{"url": "http://a.example/2.jpg", "found": "x", "boxes": [[1, 2]]}',
        '{"url": "http://a.example/3.jpg", "found": "x", "boxes": [[0, 0, 1, NaN]]}',
        '{"url": "http://a.example/4.jpg", "found": "x", "title": {"a": 1}}',
        '{"url": ["http://a.example/5.jpg"], "found": "x"}',
        '{"url": "http://[bad", "found": "x"}',
        "{torn",
        '{"url": "http://a.example/6.jpg", "found": null, "labels": "one", "title": 6}',
    ]  # without a line end, as others write the last
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines))
    result = import_manifest(dataset, path)
    rows = list(read_jsonl(dataset.url_manifest))
    assert [row["url"][-5:] for row in rows] == ["1.jpg", "6.jpg"]
    assert rows[0]["title"] == "\ufffd\ufffd"
    assert (rows[1]["labels"], rows[1]["title"], rows[1]["found"]) == (["one"], "6", "")
    assert result.skipped == {"bad_entry": 3, "not_http": 2, "bad_line": 1}
    assert result.examples["bad_entry"] == "boxes: not four numbers: [1, 2]"


@pytest.mark.parametrize("own", [True, False])
def test_text_of_parquet_that_is_not_utf8(tmp_path: Path, own: bool) -> None:
    bad = pyarrow.array([b"\xff\xfe", b"good"], pyarrow.binary()).view(pyarrow.string())
    columns = {"url": ["http://a.example/1.jpg", "http://a.example/2.jpg"], "title": bad}
    table = pyarrow.table({**columns, **({"found": ["x", "y"]} if own else {})})
    parquet.write_table(table, tmp_path / "in.parquet")
    dataset = DatasetPaths("d", tmp_path)
    assert import_manifest(dataset, tmp_path / "in.parquet").added == 2
    assert [row["title"] for row in read_jsonl(dataset.url_manifest)] == ["\ufffd\ufffd", "good"]


@pytest.mark.slow
def test_a_file_that_breaks_off_is_one_line_and_its_rows_are_kept(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    path = tmp_path / "in.jsonl.gz"
    rows = "".join(f'{{"url": "http://a.example/{n}.jpg"}}\n' for n in range(20_000))
    path.write_bytes(gzip.compress(rows.encode())[:-200])
    with pytest.raises(UserError, match=r"jsonl\.gz: EOFError.*added before that: 15,000 new rows"):
        import_manifest(dataset, path)
    assert 1000 < len(list(read_jsonl(dataset.url_manifest))) <= 20_000


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("x.csv", ["url,label", "http://a.example/1.jpg,a", "http://a.example/2.jpg,b"]),
        ("x.txt", ["http://a.example/1.jpg", "http://a.example/2.jpg"]),
        ("x.jsonl", ['{"url": "http://a.example/1.jpg"}', '{"url": "http://a.example/2.jpg"}']),
        ("own.jsonl", ['{"url": "http://a.example/1.jpg", "found": "x"}',
                       '{"url": "http://a.example/2.jpg", "found": "x"}']),
    ],
)  # fmt: skip
def test_the_last_row_needs_no_line_end(
    tmp_path: Path, name: str, rows: list[str], mark: str
) -> None:
    (tmp_path / name).write_text(mark + "\n".join(rows), encoding="utf-8")
    dataset = DatasetPaths("d", tmp_path)
    assert import_manifest(dataset, tmp_path / name) == ManifestImportResult(2, 2, {})
    assert [row["url"][-5:] for row in read_jsonl(dataset.url_manifest)] == ["1.jpg", "2.jpg"]


def test_boxes_come_back_from_a_csv(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path / "one")
    dataset.manifest_dir.mkdir(parents=True)
    url = "http://a.example/1.jpg"
    row = ManifestRow(image_key(url), url, boxes=((1, 2, 3, 4), (0, 0, 9.5, 9)))
    dataset.url_manifest.write_text(json.dumps(row.to_json()) + "\n")
    export_manifest(dataset, tmp_path / "out.csv")
    other = DatasetPaths("d", tmp_path / "two")
    import_manifest(other, tmp_path / "out.csv")
    (line,) = read_jsonl(other.url_manifest)
    assert line["boxes"] == [[1, 2, 3, 4], [0, 0, 9.5, 9]]

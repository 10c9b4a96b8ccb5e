"""The manifest as Parquet, CSV and JSON Lines, there and back, and from other tools."""

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.contract import Dataset, ManifestRow, image_key, read_jsonl
from pipeline.errors import UserError
from pipeline.stages.manifest import ImportResult, export_manifest, import_manifest


def filled(root: Path, count: int = 5) -> Dataset:
    dataset = Dataset("d", root)
    dataset.manifest.mkdir(parents=True)
    with dataset.urls.open("w") as file:
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
    other = Dataset("other", tmp_path / "two")
    assert import_manifest(other, path) == ImportResult(5, 5, {})
    assert list(read_jsonl(other.urls)) == list(read_jsonl(dataset.urls))
    assert import_manifest(other, path) == ImportResult(5, 0, {"known": 5})
    assert len(list(read_jsonl(other.urls))) == 5


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
    assert result == ImportResult(2, 1, {"not_http": 1, "no_url": 1, "known": 1})
    last = list(read_jsonl(dataset.urls))[-1]
    assert (last["url"], last["title"], last["license"]) == (
        "http://b.example/1.jpg",
        "new",
        "CC-BY",
    )


def test_mistakes(tmp_path: Path) -> None:
    dataset = filled(tmp_path)
    with pytest.raises(UserError, match=r"write to \.parquet"):
        export_manifest(dataset, tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="no such manifest"):
        export_manifest(Dataset("none", tmp_path), tmp_path / "out.csv")
    with pytest.raises(UserError, match="no such list"):
        import_manifest(dataset, tmp_path / "none.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="not Parquet"):
        import_manifest(dataset, tmp_path / "bad.parquet")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column of URLs among: a, b"):
        import_manifest(dataset, tmp_path / "bad.csv")

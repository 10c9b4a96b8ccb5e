"""Folders and archives as users have them: Kaggle's zips, splits, system files, boxes of COCO."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.__main__ import main
from pipeline.contract import DatasetPaths, UserError, read_jsonl
from tests.helpers.import_files import IMPORTS, PACKERS, files, folder_of, image, tar_of, zip_of
from tests.pipeline.importers.conftest import Take


@pytest.mark.parametrize("name", PACKERS)
def test_a_folder_and_its_archives_are_alike(tmp_path: Path, take: Take, name: str) -> None:
    done = take(PACKERS[name](tmp_path / name, files("b/0.png", "a/1.png", "c d/\u00e9/2.png")))
    assert done.found == "image folder: 3 images, 3 labels"
    assert done.labels == {"0.png": ["b"], "1.png": ["a"], "2.png": ["c d", "\u00e9"]}
    assert done.failures == []


def test_a_zip_with_backslashes(tmp_path: Path, take: Take) -> None:
    done = take(zip_of(tmp_path / "in.zip", files("b\\0.png", "a\\1.png")))
    assert done.labels == {"0.png": ["b"], "1.png": ["a"]}


def birds() -> dict[str, bytes]:
    """BIRDS 450: splits, and a folder of loose images."""
    names = [
        f"{split}/{bird}/{number} {split} {bird[0]}.jpg"
        for split in ("train", "test", "valid")
        for bird in ("ABBOTTS BABBLER", "ZEBRA DOVE")
        for number in (1, 2)
    ]
    return {**files(*names, "images to test/9.jpg"), "birds.csv": b"class id,filepaths,labels\n"}


@pytest.mark.parametrize("outer", ["", "archive/", "archive/birds/"])
@pytest.mark.parametrize("name", ["in", "in.zip"])
def test_splits_one_folder_deep(tmp_path: Path, take: Take, outer: str, name: str) -> None:
    path = PACKERS[name](tmp_path / name, {outer + key: one for key, one in birds().items()})
    done = take(path)
    assert done.found == (
        "image folder: 13 images, 2 labels, splits images to test, test, train, valid"
    )
    assert done.labels["1 test A.jpg"] == ["ABBOTTS BABBLER"]
    assert done.labels["9.jpg"] == []
    train = take(path, split="train").labels
    assert set(map(tuple, train.values())) == {("ABBOTTS BABBLER",), ("ZEBRA DOVE",)}
    assert len(train) == 4
    assert len(take(path, split="val").labels) == 4


@pytest.mark.parametrize("outer", ["", "archive/"])
@pytest.mark.parametrize("name", ["in", "in.zip"])
def test_the_only_split(tmp_path: Path, take: Take, outer: str, name: str) -> None:
    names = [f"{outer}train/{shell}/{shell}.png" for shell in ("cone", "cowrie")]
    path = PACKERS[name](tmp_path / name, files(*names))
    done = take(path, split="train")
    assert done.found == "image folder: 2 images, 2 labels, splits train"
    assert done.labels == {"cone.png": ["cone"], "cowrie.png": ["cowrie"]}
    with pytest.raises(UserError, match="no images in it"):
        take(path, split="test")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["train/0.png", "car/1.png"], [["train"], ["car"]]),  # a class, not a split
        (["train/0.png", "test/1.png"], [[], []]),
        (["train/a/0.png", "train/b/1.png"], [["a"], ["b"]]),
        (["x/a/0.png", "x/b/1.png"], [["a"], ["b"]]),
        (["a/0.png", "a/1.png"], [["a"], ["a"]]),
        (["0.png", "a/1.png"], [[], ["a"]]),
        (["0.png", "train/a/1.png"], [[], ["train", "a"]]),
        (["Conidae/Conus/0.png", "Conidae/1.png"], [["Conidae", "Conus"], ["Conidae"]]),
    ],
)
def test_what_folders_mean(
    tmp_path: Path, take: Take, names: list[str], labels: list[list[str]]
) -> None:
    done = take(folder_of(tmp_path / "in", files(*names)))
    assert [done.labels["0.png"], done.labels["1.png"]] == labels


def test_a_zip_of_zips(tmp_path: Path, take: Take) -> None:
    inner = zip_of(tmp_path / "a.zip", files("cat/0.png", "dog/1.png")).read_bytes()
    cut = inner[:-30]
    tar = tar_of(tmp_path / "t.tar", files("cow/2.png")).read_bytes()
    path = zip_of(tmp_path / "in.zip", {
        "train.zip": inner,
        "test/x.zip": zip_of(tmp_path / "b.zip", {"cat/3.png": image(3)}).read_bytes(),
        "train/t.tar": tar, "cut.zip": cut, "deep.zip": zip_of(
            tmp_path / "c.zip", {"b.zip": zip_of(tmp_path / "d.zip", {"a.zip": inner}).read_bytes()}
        ).read_bytes(),
    })  # fmt: skip
    done = take(path)
    assert {title: labels[-1] for title, labels in done.labels.items()} == {
        "0.png": "cat", "1.png": "dog", "2.png": "cow", "3.png": "cat",
    }  # fmt: skip
    (problem,) = done.problems
    assert problem.startswith("damaged: cannot be read as a zip file (")
    again = folder_of(tmp_path / "in", {"train.zip": inner, "test.zip": inner, "bad.zip": cut})
    done = take(again, split="train")
    assert done.labels == {"0.png": ["cat"], "1.png": ["dog"]}
    folder_of(again, files("train/cat/0.png"))  # its user has unpacked it already
    assert take(again, split="train").labels == {"0.png": ["cat"]}


SYSTEM = {
    "__MACOSX/a/._0.png": b"\0\5\x16\7", "a/._0.png": b"\0\5\x16\7", "a/.DS_Store": b"x",
    "a/Thumbs.db": b"x", "__MACOSX/._a": b"x",
}  # fmt: skip


@pytest.mark.parametrize("name", PACKERS)
def test_files_of_operating_systems_are_ignored(tmp_path: Path, take: Take, name: str) -> None:
    done = take(PACKERS[name](tmp_path / name, files("a/0.png", "b/1.png") | SYSTEM))
    assert done.labels == {"0.png": ["a"], "1.png": ["b"]}
    assert done.failures == []
    flat = take(PACKERS[name](tmp_path / f"f{name}", {
        "0.png": image(0), "._0.png": b"\0\5\x16\7", "0.json": b"{}", "._0.json": b"x",
    }))  # fmt: skip
    assert len(flat.labels) == 1
    assert flat.failures == []


def test_hostile_names(tmp_path: Path, take: Take) -> None:
    names = ["../../up/0.png", "/etc/1.png", "a/../../2.png", "C:\\x\\3.png", "a\n\x1b[2J/4.png"]
    done = take(zip_of(tmp_path / "in.zip", files(*names)))
    assert done.result.images == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip", "project-0"]
    assert not any("\x1b" in "".join(labels) for labels in done.labels.values())


@pytest.mark.parametrize("cut", [1, 30, 200, 700])
@pytest.mark.parametrize("name", [name for name in PACKERS if "." in name])
def test_archives_that_end_early(tmp_path: Path, take: Take, name: str, cut: int) -> None:
    path = PACKERS[name](tmp_path / name, files("a/0.png", "b/1.png", "b/2.png"))
    path.write_bytes(path.read_bytes()[: -min(cut, path.stat().st_size - 1)])
    try:
        done = take(path)
    except UserError as error:
        said = str(error)
    else:
        said = f"{path}: {len(done.problems)}"
        assert done.result.images + done.result.failed <= 4
    assert said.startswith(f"{path}: ")
    assert "\n" not in said


def test_a_metadata_table_in_parquet_and_in_a_zip(tmp_path: Path, take: Take) -> None:
    images = files("train/0.png", "train/1.png", "train/2.png")
    rows = [{"file_name": f"{number}.png", "label": "ab"[number], "kind": "x"} for number in (0, 1)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    table = {"train/metadata.parquet": (tmp_path / "metadata.parquet").read_bytes()}
    done = take(folder_of(tmp_path / "in", images | table))
    assert done.found == "images with metadata.parquet: 3 images"
    assert done.labels == {"0.png": ["a"], "1.png": ["b"]}
    assert take(tmp_path / "in", label="kind").labels == {"0.png": ["x"], "1.png": ["x"]}
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    done = take(zip_of(tmp_path / "in.zip", images | {"train/metadata.jsonl": lines[:-1]}))
    assert done.labels == {"0.png": ["a"], "1.png": ["b"]}
    with pytest.raises(UserError, match=r"metadata\.csv: lists none of the images; correct its"):
        take(folder_of(tmp_path / "none", images | {"metadata.csv": b"file_name,label\n0.png,a"}))
    path = folder_of(tmp_path / "bad", images | {"train/metadata.parquet": b"PAR1"})
    with pytest.raises(UserError, match="lists none of the images"):
        take(path)


ROWS = [("train/0.png", "a"), ("train/gone.png", "b"), ("test/lost.png", "c"), ("out.png", "d")]
TABLES = {
    "csv": "".join(f"{name},{label}\n" for name, label in [("file_name", "label"), *ROWS]),
    "jsonl": "".join(json.dumps({"file_name": one, "label": two}) + "\n" for one, two in ROWS),
}


@pytest.mark.parametrize("form", TABLES)
def test_rows_without_image_and_images_without_row_are_named(
    tmp_path: Path, take: Take, form: str
) -> None:
    images = files("train/0.png", "train/1.png", "train/2.png", "test/3.png")
    path = folder_of(tmp_path / "in", images | {f"metadata.{form}": TABLES[form].encode()})
    done = take(path)
    first = 3 if form == "csv" else 2
    assert done.labels == {"0.png": ["a"]}
    assert done.problems == [
        f"parse_error: line {first + place}: no such image: {name}"
        for place, (name, _) in enumerate(ROWS[1:])
    ]
    assert len({one["url"] for one in done.failures}) == 3
    assert skipped(tmp_path / "project-0") == [
        {"images": 3, "first": "test/3.png",
         "why": f"not listed in metadata.{form}; add rows to import them"}
    ]  # fmt: skip
    done = take(path, split="train")
    assert done.problems == [f"parse_error: line {first}: no such image: train/gone.png"]
    assert [one["first"] for one in skipped(tmp_path / "project-1")] == ["train/1.png"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_separated_by_commas_semicolons_or_tabs(
    tmp_path: Path, take: Take, separator: str
) -> None:
    rows = [("license", "file_name", "label"), ("CC0", "0.png", '"a,b;c\td"'), ("", "1.png", "x")]
    table = "".join(separator.join(row) + "\r\n" for row in rows).encode()
    done = take(folder_of(tmp_path / "in", files("0.png", "1.png") | {"metadata.csv": table}))
    assert done.labels == {"0.png": ["a,b;c\td"], "1.png": ["x"]}
    assert done.rows["0.png"]["license"] == "CC0"
    assert done.problems == []


def test_a_row_without_file_name_names_the_columns_found(tmp_path: Path, take: Take) -> None:
    lines = ['{"file_name": "0.png"}', '{"file": "1.png", "label": "x"}', '{"file_name": 5}']
    table = {"metadata.jsonl": "\n".join(lines).encode(), "b/metadata.csv": b"name|label\n1.png|x"}
    done = take(folder_of(tmp_path / "in", files("0.png", "b/1.png") | table))
    assert sorted(done.problems) == [
        "parse_error: line 2: file_name: missing; columns found: 'file', 'label'",
        "parse_error: line 2: file_name: missing; columns found: 'name|label'",
        "parse_error: line 3: file_name: not text, but 5",
    ]


def skipped(project: Path) -> list[dict[str, object]]:
    """Return the facts of the events that name skipped images."""
    events = read_jsonl(DatasetPaths("d", project).event_log)
    return [one["facts"] for one in events if one["event"] == "images skipped"]


# the command


def test_the_command_prints_the_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.toml").write_text('[source]\nkind = "folder"\nstart = ["."]\n')
    path = folder_of(tmp_path / "in", files("train/a/0.png", "test/b/1.png"))
    assert main(["import", "d.toml", str(path), "--split", "train"]) == 0
    said = capsys.readouterr().err
    assert f"{path}: image folder: 2 images, 2 labels, splits test, train\n" in said
    assert main(["import", "d.toml", str(path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        main(["import", "d.toml", str(path), "--format", "zip"])
    assert main(["import", "d.toml", str(tmp_path / "nothing"), "--format", "mnist"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["import", "d.toml", str(tmp_path / "empty")]) == 2
    assert "no images in it; --format NAME reads it as one of shards, nvlabs" in (
        capsys.readouterr().err
    )


def test_another_format_than_the_detected_one(tmp_path: Path, take: Take) -> None:
    path = IMPORTS / "img2dataset/files"
    assert set(take(path, "imagefolder").labels) == {
        "000000.png", "000001.png", "000002.png", "000010.png",
    }  # fmt: skip
    assert take(IMPORTS / "img2dataset/webdataset", "imagefolder").result.images == 4
    tar = tar_of(tmp_path / "x.tar", files("a/0.png", "b/1.png"))
    assert take(tar).labels == {"0.png": ["a"], "1.png": ["b"]}
    assert take(tar, "shards").labels == {"a/0": [], "b/1": []}


def test_options_that_a_format_does_not_have(tmp_path: Path, take: Take) -> None:
    path = zip_of(tmp_path / "x.zip", files("0.png") | {"dataset.json": b'{"labels": null}'})
    with pytest.raises(UserError, match="--label: not an option of the format nvlabs; shards, "):
        take(path, label="x")
    with pytest.raises(UserError, match="--split: not an option of the format nvlabs; mnist, "):
        take(path, split="train")
    folder = folder_of(tmp_path / "in", files("a/0.png"))
    with pytest.raises(UserError, match=r"--label x: .* has no metadata\.csv"):
        take(folder, label="x")
    with pytest.raises(UserError, match=r"no images in it \(read as imagefolder, split val\)"):
        take(folder, split="val")
    tars = IMPORTS / "img2dataset/webdataset"
    with pytest.raises(UserError, match="--label x: no label in the first 4 images; choose"):
        take(tars, label="x")
    assert not (tmp_path / "project-4/manifests").exists()


def test_json_of_other_tools_does_not_replace_the_labels(tmp_path: Path, take: Take) -> None:
    members = files("cat/0.png", "dog/1.png", "dog/2.png") | {
        "cat/0.json": b'{"shapes": []}', "dog/1.json": b'{"label": "x", "caption": "one"}',
    }  # fmt: skip
    done = take(folder_of(tmp_path / "in", members))
    assert done.found == "2 images with JSON"
    assert done.labels == {"0.png": ["cat"], "one": ["x"], "2.png": ["dog"]}


def test_a_pipe_in_place_of_an_archive(tmp_path: Path, take: Take) -> None:
    path = folder_of(tmp_path / "in", files("a/0.png"))
    os.mkfifo(path / "x.zip")
    os.mkfifo(path / "y.tar")
    os.mkfifo(path / "z.parquet")
    assert take(path).result.images == 1
    shutil.rmtree(path)

"""Datasets that the libraries of their formats have written: pixels, labels, titles and boxes."""

from __future__ import annotations

import io
import shutil
import struct
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pytest
import webdataset
from pyarrow import parquet
from tensorboard.summary.writer.record_writer import RecordWriter

from pipeline.contract import UserError
from pipeline.importers import stage
from tests.helpers.import_files import IMPORTS
from tests.pipeline.importers.conftest import Take

CLASSES = ("Conus", "Bursa")
CAPTIONS = {f"shell {number}": [CLASSES[number % 2]] for number in range(4)}


def image(number: int) -> bytes:
    return (IMPORTS / f"images/{number}.png").read_bytes()


def check_pixels(pixels: dict[str, np.ndarray], truth: list[np.ndarray]) -> None:
    for title, values in pixels.items():
        np.testing.assert_array_equal(values, truth[int(title.split()[-1])])


@pytest.mark.parametrize(
    ("path", "count", "found"),
    [
        ("webdataset", 4, "img2dataset output (webdataset): 2 tars"),
        ("webdataset/00000.tar", 3, "WebDataset: 1 tar"),
        ("files", 4, "img2dataset output (files): 4 images with JSON"),
        ("parquet", 4, "img2dataset output (parquet): 2 files"),
        ("tfrecord", 3, "TFRecord: 1 file"),
    ],
)
def test_img2dataset(
    take: Take, truth: list[np.ndarray], path: str, count: int, found: str
) -> None:
    done = take(IMPORTS / "img2dataset" / path)
    assert done.found == found
    assert done.labels == dict(list(CAPTIONS.items())[:count])
    assert {row["license"] for row in done.rows.values()} == {"CC0"}
    assert done.rows["shell 1"]["url"] == "http://127.0.0.1:8765/1.png"
    assert done.failures == []  # the image that img2dataset could not fetch is not one
    check_pixels(done.pixels, truth)


def test_img2dataset_without_images_says_how_to_fetch_them(tmp_path: Path, take: Take) -> None:
    for name in ("00000.parquet", "00000_stats.json"):
        shutil.copy(IMPORTS / "img2dataset/files" / name, tmp_path)
    with pytest.raises(UserError, match="without images; import-manifest reads the Parquet"):
        take(tmp_path)


@pytest.mark.parametrize("path", ["huggingface", "arrow"])
def test_datasets(take: Take, truth: list[np.ndarray], path: str) -> None:
    done = take(IMPORTS / path)
    assert done.found.startswith("images in Parquet or Arrow: ")
    assert done.labels == CAPTIONS  # the names of the ClassLabel
    check_pixels(done.pixels, truth)


@pytest.mark.parametrize("name", ["arrow/data-00000-of-00001.arrow",
                                  "img2dataset/parquet/00000.parquet",
                                  "img2dataset/tfrecord/00000.tfrecord"])  # fmt: skip
def test_extensions_in_any_case(tmp_path: Path, take: Take, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / Path(name).name.upper()
    shutil.copy(IMPORTS / name, path)
    assert take(tmp_path / "in").labels == take(IMPORTS / name).labels != {}


def test_a_split_of_datasets(take: Take) -> None:
    done = take(IMPORTS / "huggingface", split="test")
    assert done.labels.keys() == {"shell 2", "shell 3"}


def test_boxes_of_datasets(take: Take) -> None:
    done = take(IMPORTS / "boxes.parquet")
    assert done.boxes == {"0.png": [[0, 0, 8, 8], [1, 2, 4, 6]]}
    assert done.labels == {"0.png": ["Conus", "Bursa"]}


def test_pandas(take: Take) -> None:
    done = take(IMPORTS / "pandas.parquet")
    assert done.labels == {f"{number}.png": [CLASSES[number % 2]] for number in range(4)}
    done = take(IMPORTS / "pandas.parquet", label="image")
    assert done.result.images == 4
    with pytest.raises(UserError, match="no column 'x'; choose from image, label"):
        take(IMPORTS / "pandas.parquet", label="x")


def test_a_path_in_parquet_is_a_file_beside_it(tmp_path: Path, take: Take) -> None:
    rows = [{"image": {"bytes": None, "path": name}} for name in ("a.png", "../../etc/passwd")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "a.png").write_bytes(image(0))
    done = take(tmp_path, "parquet")
    assert done.labels.keys() == {"a.png"}
    assert done.problems == ["not_found: row 1: no file ../../etc/passwd"]


def test_webdataset(tmp_path: Path, take: Take, truth: list[np.ndarray]) -> None:
    """Numbers and names in .cls, dots in folders, upper case, long names, captions."""
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        writer.write({"__key__": "0 0", "png": image(0), "cls": b"7"})
        writer.write({"__key__": "train.v1/1 1", "PNG": image(1), "cls": b"Conus"})
        writer.write({"__key__": "a" * 150 + " 2", "png": image(2), "json": {"label": "x"}})
        writer.write({"__key__": "3", "image.png": image(3), "txt": "a shell 3"})
    done = take(tmp_path / "x.tar")
    assert done.labels == {
        "0 0": ["7"], "train.v1/1 1": ["Conus"], "a" * 150 + " 2": ["x"], "a shell 3": []
    }  # fmt: skip
    check_pixels(done.pixels, truth)
    assert take(tmp_path / "x.tar", label="txt").labels["a shell 3"] == ["a shell 3"]


def test_a_key_that_occurs_twice_is_a_failure(tmp_path: Path, take: Take) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in (("a.png", image(0)), ("b.png", image(1)), ("a.cls", b"1"),
                           ("a.png", image(2))):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    done = take(tmp_path / "x.tar")
    assert done.labels.keys() == {"a", "b"}
    assert done.problems == ["parse_error: a: occurs twice, or its files are not adjacent"]


def test_lmdb(tmp_path: Path, take: Take, truth: list[np.ndarray]) -> None:
    folder = tmp_path / "bedroom_lmdb"
    with lmdb.open(str(folder), map_size=1 << 20) as database, database.begin(write=True) as put:
        for number in range(4):
            put.put(f"key {number}".encode(), image(number))
        put.put(b"length", b"4")
    done = take(folder)
    assert done.found == "LMDB: 1 database"
    assert done.labels == {f"key {number}": [] for number in range(4)}
    check_pixels(done.pixels, truth)
    data = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(data[:-4096])
    assert take(folder).problems[0].startswith("damaged: not an LMDB file (truncated: ")
    (folder / "data.mdb").write_bytes(b"no database" * 1000)
    assert take(folder).problems[0].startswith("damaged: not an LMDB file (")


def test_lmdb_of_several_resolutions(tmp_path: Path, take: Take) -> None:
    with (
        lmdb.open(str(tmp_path / "x"), map_size=1 << 20) as database,
        database.begin(write=True) as put,
    ):
        for key in (b"8-00000", b"16-00000", b"16-00001"):
            put.put(key, image(int(key[-1:])))
    assert take(tmp_path / "x").labels.keys() == {"16-00000", "16-00001"}


def example(**features: bytes) -> bytes:
    """A `tf.train.Example` of bytes."""

    def part(number: int, data: bytes) -> bytes:
        size = len(data)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([number << 3 | 2]) + length + data

    entries = (
        part(1, part(1, name.encode()) + part(2, part(1, part(1, value))))
        for name, value in features.items()
    )
    return part(1, b"".join(entries))


def test_a_damaged_tfrecord(tmp_path: Path, take: Take) -> None:
    path = tmp_path / "x.tfrecord"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for data in (example(image=image(0), label=b"a"), example(image=b"x"), b"\xff" * 9,
                     example(image=image(1), label=b"b")):  # fmt: skip
            writer.write(data)
    done = take(path)
    assert [row["labels"] for row in done.rows.values()] == [["a"], ["b"]]
    assert [one.partition(":")[0] for one in done.problems] == ["parse_error"] * 2
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "damaged: not a complete TFRecord file, after 3 records: truncated" in str(
        take(path).problems
    )
    path.write_bytes(whole + struct.pack("<QI", 1 << 60, 5))
    assert "after 4 records: damaged at byte" in str(take(path).problems)


@pytest.mark.parametrize("name", ["huggingface/data/train-00000-of-00001.parquet",
                                  "arrow/data-00000-of-00001.arrow"])  # fmt: skip
def test_a_damaged_table(tmp_path: Path, take: Take, name: str) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(IMPORTS / name, tmp_path / "in/a.parquet" if "parquet" in name else tmp_path / "in")
    path = next((tmp_path / "in").iterdir())
    whole = path.read_bytes()
    shutil.copy(path, path.with_name(f"b{path.suffix}"))
    path.write_bytes(whole[:-50])
    done = take(tmp_path / "in")
    assert done.result.images >= 2
    assert len(done.problems) <= 1
    path.write_bytes(b"junk" + whole[200:300])
    done = take(tmp_path / "in")
    assert done.result.images in (2, 4)
    (problem,) = done.problems
    assert problem.startswith("damaged: not a complete table, after 0 rows: ")


def test_the_images_of_a_table_are_not_all_held_in_memory(
    tmp_path: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part ends early if its images, which wait in memory, are large."""
    monkeypatch.setattr(stage, "_MAX_HELD", 1200)
    rows = [{"image": {"bytes": image(number % 4), "path": f"{number}.png"}} for number in range(9)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    done = take(tmp_path / "x.parquet")
    assert done.result.images == 9
    plans = sorted((tmp_path / "project-0/data/d/originals").glob("*.plan.jsonl"))
    assert [len(plan.read_text().splitlines()) for plan in plans] == [3, 3, 3]

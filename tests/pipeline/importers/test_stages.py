"""Imported images through the stages after import: boxes, classes, preview, a second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config_io import parse_config
from pipeline.contract import (
    DatasetPaths,
    JsonlAppender,
    ManifestRow,
    image_key,
    load_index,
    read_jsonl,
)
from pipeline.contract.tar import read_samples
from pipeline.events import EventLog
from pipeline.importers import stage as imports
from pipeline.importers.items import ImportOptions
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.originals.download import download
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.parts import PartFiles, is_complete, planned_parts, read_records
from pipeline.recipe import Recipe
from pipeline.select.stage import select
from pipeline.shards.samples import decode
from pipeline.shards.stage import shard
from tests.helpers.import_files import png, write

LIMITS = {"min_side": 8, "near_duplicate_bits": "off", "min_sharpness": 0, "min_contrast": 0}


def recipe(**shards: Any) -> Recipe:
    source = {"kind": "folder", "start": ["."]}
    values = {"source": source, "select": LIMITS, "shards": {"format": "png", **shards}}
    return parse_config(Recipe, values, "test")


def build(path: Path, root: Path, made: Recipe, **options: str) -> DatasetPaths:
    dataset = DatasetPaths("d", root)
    with EventLog(dataset, "test") as log:
        import_dataset(path, dataset, log, recipe=made, options=ImportOptions(**options))
        select(made, dataset, log)
        shard(made, dataset, log, workers=1)
    return dataset


def samples(dataset: DatasetPaths) -> dict[str, tuple[np.ndarray, dict[str, Any], str]]:
    index, paths = load_index(dataset.manifest_dir)
    return {
        json.loads(files["json"])["title"]: (
            decode(files["png"], 3, index.resolution), json.loads(files["json"]),
            index.labels[int(files["cls"])] if index.labels else "",
        )
        for path in paths for _, files in read_samples(Path(path))
    }  # fmt: skip


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Two noise images with a plain square of 16 × 16 pixels, which is the box."""
    for number, (left, top) in enumerate(((5, 20), (40, 3))):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        pixels[top : top + 16, left : left + 16] = (200, 30 * number, 10)
        (tmp_path / "dogs/Images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"dogs/Images/{number}.png")
        box = "".join(
            f"<{side}>{value}</{side}>"
            for side, value in (("xmin", left), ("ymin", top), ("xmax", left + 16),
                                ("ymax", top + 16))
        )  # fmt: skip
        text = f"<annotation><object><name>dog {number}</name><bndbox>{box}</bndbox></object>"
        (tmp_path / "dogs/Annotation").mkdir(exist_ok=True)
        (tmp_path / f"dogs/Annotation/{number}").write_text(f"{text}</annotation>")
    return tmp_path / "dogs"


def test_the_box_of_an_import_is_what_the_shard_stage_crops_to(dogs: Path, tmp_path: Path) -> None:
    made = recipe(crop="box", margin=0, resolution=16, class_label=0)
    found = samples(build(dogs, tmp_path / "project", made))
    for number in range(2):
        pixels, values, label = found[f"{number}.png"]
        assert label == f"dog {number}"
        assert (pixels == (200, 30 * number, 10)).all()
        assert values["labels"] == [f"dog {number}"]
    centers = samples(build(dogs, tmp_path / "other", recipe(resolution=16, margin=0)))
    assert not any((pixels == pixels[0, 0]).all() for pixels, _, _ in centers.values())


def test_a_second_import_adds_only_what_is_new(dogs: Path, tmp_path: Path) -> None:
    made = recipe(resolution=16)
    build(dogs, tmp_path / "project", made)
    Image.new("RGB", (32, 32), "blue").save(dogs / "Images/2.png")
    dataset = DatasetPaths("d", tmp_path / "project")
    with EventLog(dataset, "test") as log:
        again = import_dataset(dogs, dataset, log, recipe=made)
    assert (again.images, again.known, again.failed) == (1, 2, 0)
    assert len(list(read_jsonl(dataset.url_manifest))) == 3


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://a.example/\0.png", "https://a.example/\ufffd.png"),
        ("https://me:secret@a.example/1.png", "https://a.example/1.png"),
    ],
)
def test_the_key_of_an_image_is_that_of_its_stored_url(
    tmp_path: Path, url: str, stored: str
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in/0.png")
    (tmp_path / "in/metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "url": url}))
    dataset = DatasetPaths("d", tmp_path)
    with EventLog(dataset, "test") as log:
        import_dataset(tmp_path / "in", dataset, log)
        assert import_dataset(tmp_path / "in", dataset, log).known == 1
    (row,) = read_jsonl(dataset.url_manifest)
    assert (row["url"], row["key"]) == (stored, image_key(stored))
    (record,) = read_records(dataset)
    assert record.key == image_key(stored)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of four images."""
    for folder, start in (("a", 0), ("b", 4)):
        for number in range(start, start + 4):
            write(tmp_path / f"{folder}/{number}.png", png(number))
    return tmp_path / "a", tmp_path / "b"


def take(path: Path, dataset: DatasetPaths, **options: str) -> ImportResult:
    with EventLog(dataset, "test") as log:
        return import_dataset(path, dataset, log, options=ImportOptions(**options))


def interrupt(path: Path, dataset: DatasetPaths, after: int, **options: str) -> None:
    """Import a path, and stop when `after` images are stored."""
    add, count = imports._add, iter(range(100))

    def stop(*args: Any) -> Any:
        if next(count) == after:
            raise KeyboardInterrupt
        return add(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imports, "_add", stop)
        with pytest.raises(KeyboardInterrupt):
            take(path, dataset, **options)


def stored(dataset: DatasetPaths) -> list[str]:
    """The file names of the originals."""
    urls = {row["key"]: row["url"] for row in read_jsonl(dataset.url_manifest)}
    return sorted(urls[record.key].rpartition("/")[2] for record in read_records(dataset))


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_import_waits_for_its_source(
    tmp_path: Path, sources: tuple[Path, Path], after: int
) -> None:
    dataset = DatasetPaths("d", tmp_path)
    interrupt(sources[0], dataset, after)
    assert take(sources[1], dataset) == ImportResult(4, 0, 0, pending=4)
    assert stored(dataset) == ["4.png", "5.png", "6.png", "7.png"]
    assert take(sources[1], dataset) == ImportResult(0, 4, 0, pending=4)
    assert take(sources[0], dataset) == ImportResult(4 - after, after, 0)
    assert stored(dataset) == [f"{number}.png" for number in range(8)]
    assert all(is_complete(dataset, part) for part in planned_parts(dataset))


def test_an_interrupted_split_waits_for_its_import(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "test", "test")):
        write(tmp_path / f"in/{split}/x/{number}.png", png(number))
    dataset = DatasetPaths("d", tmp_path)
    interrupt(tmp_path / "in", dataset, 1, split="train")
    assert take(tmp_path / "in", dataset, split="test") == ImportResult(2, 0, 0, pending=2)
    assert take(tmp_path / "in", dataset) == ImportResult(1, 3, 0)
    assert stored(dataset) == [f"{number}.png" for number in range(4)]


def test_an_import_leaves_planned_downloads(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    dataset = DatasetPaths("d", tmp_path)
    url = "https://a.example/1.png"
    with JsonlAppender(dataset.url_manifest) as file:
        file.append(ManifestRow(image_key(url), url).to_json())
    (part,) = assign_parts(dataset)
    assert take(sources[0], dataset) == ImportResult(4, 0, 0, pending=1)
    assert assign_parts(dataset) == [part]
    assert not PartFiles(dataset, part).journal.exists()


def test_what_a_source_lost_is_reported_until_a_download_gives_up(
    tmp_path: Path, sources: tuple[Path, Path]
) -> None:
    dataset = DatasetPaths("d", tmp_path)
    interrupt(sources[0], dataset, 1)
    (sources[0] / "3.png").unlink()
    assert take(sources[0], dataset) == ImportResult(2, 1, 0, pending=4)
    assert take(sources[0], dataset) == ImportResult(0, 3, 0, pending=4)
    with EventLog(dataset, "test") as log:
        result = download(recipe(), dataset, log)
    assert (result.fetched, result.failed) == (0, 1)
    assert stored(dataset) == ["0.png", "1.png", "2.png"]
    assert take(sources[0], dataset) == ImportResult(0, 3, 0)

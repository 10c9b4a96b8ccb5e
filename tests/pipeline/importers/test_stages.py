"""Imported images through the stages after import: boxes, classes, preview, a second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, image_key, load_index, read_jsonl
from pipeline.contract.tar import read_samples
from pipeline.events import EventLog
from pipeline.importers.items import ImportOptions
from pipeline.importers.stage import import_dataset
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.select.stage import select
from pipeline.shards.samples import decode
from pipeline.shards.stage import shard

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

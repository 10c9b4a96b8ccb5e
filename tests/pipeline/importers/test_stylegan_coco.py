"""Zips of StyleGAN with their labels, and images with the boxes of COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import UserError
from tests.helpers.import_files import PACKERS, files, folder_of, image, zip_of
from tests.pipeline.importers.conftest import Take

# StyleGAN's zips


def nvlabs(path: Path, labels: object, names: list[str] | None = None) -> Path:
    values = {"labels": labels, **({"label_names": names} if names else {})}
    images = files("00000/img0.png", "00000/img1.png", "00000/img2.png")
    return zip_of(path, images | {"dataset.json": json.dumps(values).encode()})


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (None, None, [[], [], []]),
        ([["00000/img0.png", 2], ["00000/img1.png", 0], ["00000/img2.png", 1]], None,
         [["2"], ["0"], ["1"]]),
        ([["00000\\img0.png", 2], ["00000\\img1.png", 0], ["./00000/img2.png", 1]],
         ["a", "b", "c"], [["c"], ["a"], ["b"]]),
        ([["00000/img0.png", [0, 0, 1]], ["00000/img1.png", [1.0, 0.0, 0.0]],
          ["00000/img2.png", [0, 1, 1]]], None, [["2"], ["0"], ["1", "2"]]),
        ({"00000/img0.png": 2, "00000/img1.png": 0, "00000/img2.png": None}, None,
         [["2"], ["0"], []]),
    ],
)  # fmt: skip
def test_labels_of_stylegan(
    tmp_path: Path, take: Take, labels: object, names: list[str] | None, expected: list[list[str]]
) -> None:
    done = take(nvlabs(tmp_path / "x.zip", labels, names))
    assert done.found == "images with dataset.json (StyleGAN)"
    assert [done.labels[f"00000/img{number}.png"] for number in range(3)] == expected
    assert done.failures == []


def test_labels_of_stylegan_that_are_lost_say_so(tmp_path: Path, take: Take) -> None:
    done = take(nvlabs(tmp_path / "x.zip", [["img0.png", 1], ["00000/img1.png", [0.5, 0.5]]]))
    assert done.result.images == 3
    assert done.problems == [
        "parse_error: labels.1: not a class number and not a one-hot list: [0.5, 0.5]",
        "parse_error: no such image: img0.png",
    ]


# COCO


def coco(**changes: object) -> bytes:
    values = {
        "info": {"description": "x", "nested": [[1], {"a": "]"}]},
        "licenses": [{"id": 1}],
        "images": [{"id": 7, "file_name": "0.png", "width": 16}, {"id": 8, "file_name": "1.png"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"image_id": 7, "category_id": 5, "bbox": [0, 0, 8.5, 8], "segmentation": [[1.5]]},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 16, 12], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        **changes,
    }  # fmt: skip
    return json.dumps(values, indent=1).encode()


EXPECTED = {"0.png": [[0, 0, 8.5, 8], [1, 2, 4, 6]], "1.png": []}


@pytest.mark.parametrize("outer", ["", "coco/"])
@pytest.mark.parametrize("name", ["in", "in.zip"])
def test_coco(tmp_path: Path, take: Take, name: str, outer: str) -> None:
    members = files("train2017/0.png", "train2017/1.png")
    members["annotations/instances_train2017.json"] = coco()
    members["annotations/captions_train2017.json"] = b"{"
    path = PACKERS[name](tmp_path / name, {outer + key: one for key, one in members.items()})
    done = take(path)
    assert done.found == "images with boxes (COCO): instances_train2017.json"
    assert done.boxes == EXPECTED
    assert done.labels == {"0.png": ["dog", "cat"], "1.png": []}
    assert done.failures == []
    assert take(path, split="train").result.images == 2
    with pytest.raises(UserError, match="no images in it"):
        take(path, split="val")
    if path.is_dir():
        json_file = path / outer / "annotations/instances_train2017.json"
        assert take(json_file).boxes == EXPECTED


def test_coco_as_roboflow_exports_it(tmp_path: Path, take: Take) -> None:
    folder_of(tmp_path / "in", {
        "train/0.png": image(0), "train/1.png": image(1), "train/_annotations.coco.json": coco(),
    })  # fmt: skip
    assert take(tmp_path / "in").boxes == EXPECTED
    assert take(tmp_path / "in", split="train").boxes == EXPECTED


def of_two(*names: str) -> bytes:
    """A JSON file with a cat and a dog."""
    return coco(
        images=[{"id": 7 + number, "file_name": name} for number, name in enumerate(names)],
        annotations=[
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"image_id": 8, "category_id": 5, "bbox": [5, 6, 3, 4]},
        ],
    )


def labels_by_url(done: Any) -> dict[str, list[str]]:
    """The labels by the last three components of the URL."""
    return {"/".join(row["url"].rsplit("/", 3)[1:]): row["labels"] for row in done.listed}


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (("cat/0.png", "dog/0.png"), "instances_train.json"),
        (("./cat/0.png", "..\\images\\dog\\0.png"), "annotations/instances_train.json"),
        (("/home/me/cat/0.png", "/home/me/dog/0.png"), "x/instances_train.json"),
    ],
    ids=["relative", "outside", "absolute"],
)
def test_images_of_coco_with_one_name_in_two_folders(
    tmp_path: Path, take: Take, names: tuple[str, str], table: str
) -> None:
    members = files("images/cat/0.png", "images/dog/0.png") | {table: of_two(*names)}
    done = take(folder_of(tmp_path / "in", members))
    assert labels_by_url(done) == {"images/cat/0.png": ["cat"], "images/dog/0.png": ["dog"]}
    assert sorted(row["boxes"][0][0] for row in done.listed) == [1, 5]
    alone = take(tmp_path / "in" / table)
    if table == "instances_train.json":
        assert labels_by_url(alone) == labels_by_url(done)


def test_an_image_of_coco_does_not_get_the_label_of_another_one(tmp_path: Path, take: Take) -> None:
    members = files("images/dog/0.png") | {"instances_x.json": of_two("cat/0.png", "dog/0.png")}
    done = take(folder_of(tmp_path / "in", members))
    assert labels_by_url(done) == {"images/dog/0.png": ["dog"]}
    assert done.problems == ["not_found: no image cat/0.png"]
    several = files("a/0.png", "b/0.png", "1.png")
    several["instances_x.json"] = of_two("c/0.png", "other/1.png")
    done = take(folder_of(tmp_path / "several", several))
    assert list(labels_by_url(done).values()) == [["dog"]]
    assert done.problems == [
        "parse_error: several images or entries of this name: c/0.png; write their paths in "
        "file_name"
    ]


def test_two_splits_of_roboflow_with_the_same_names(tmp_path: Path, take: Take) -> None:
    members = files("train/0.png", "train/1.png", "valid/0.png", "valid/1.png")
    members["train/_annotations.coco.json"] = of_two("0.png", "1.png")
    members["valid/_annotations.coco.json"] = of_two("1.png", "0.png")
    done = take(folder_of(tmp_path / "in", members))
    assert labels_by_url(done) == {
        "in/train/0.png": ["cat"], "in/train/1.png": ["dog"],
        "in/valid/0.png": ["dog"], "in/valid/1.png": ["cat"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (coco()[:-200], "parse_error: not JSON of COCO, after 5 entries: "),
        (coco(annotations=[{"image_id": 7}, 5]), "parse_error: annotations: "),
        (coco(annotations=[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}]),
         "parse_error: annotations: "),
        (coco(annotations=[{"image_id": 7, "category_id": [3], "bbox": [1, 2, 3, 4]}]),
         "parse_error: annotations: TypeError"),
        (coco(images=[{"id": 1, "file_name": "../../etc/x"}]), "not_found: no image ../../etc/x"),
        (coco(images=[{"id": 1}]), "parse_error: images: "),
        (b'{"images": [', "parse_error: not JSON of COCO, after 0 entries: the file ends early"),
        (b'{"images": ' + b"[" * 100_000, "parse_error: not JSON of COCO, after 0 entries: "),
    ],
)  # fmt: skip
def test_damaged_coco(tmp_path: Path, take: Take, data: bytes, problem: str) -> None:
    path = folder_of(tmp_path / "in", files("0.png", "1.png") | {"instances_x.json": data})
    assert take(path).problems[0].startswith(problem)


def test_json_of_coco_is_not_held_in_memory(tmp_path: Path, take: Take) -> None:
    """An entry is parsed when its text is complete, wherever the chunks of the file end."""
    many = [
        {"image_id": 7, "category_id": 3, "bbox": [number, 0, 1, 1], "segmentation": [[0.5] * 400]}
        for number in range(3000)
    ]
    data = coco(annotations=many)
    assert len(data) > 5 << 20
    done = take(folder_of(tmp_path / "in", files("0.png", "1.png") | {"instances_x.json": data}))
    assert sorted(box[0] for box in done.boxes["0.png"]) == list(range(3000))

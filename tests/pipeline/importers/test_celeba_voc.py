"""CelebA, and Pascal VOC's boxes as in Stanford Dogs: torchvision reads the same files, and its
pixels, labels and boxes are the ones that were imported."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from pipeline.contract import UserError
from tests.helpers.import_files import png, write
from tests.pipeline.importers.conftest import Take

# CelebA

ATTRIBUTES = ["Male", "Smiling", "Young"]
VALUES = {"000001.jpg": (-1, 1, 1), "000002.jpg": (1, -1, 1), "000003.jpg": (-1, -1, -1)}


class CelebA(datasets.CelebA):
    """Without the checksums of the real files."""

    def _check_integrity(self) -> bool:
        return True


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    folder = tmp_path / "celeba"
    for number, name in enumerate(VALUES):
        write(folder / "img_align_celeba" / name, png(number))
    lines = [f"{name} " + " ".join(map("{:2}".format, row)) for name, row in VALUES.items()]
    write(folder / "list_attr_celeba.txt", "\n".join(["3", " ".join(ATTRIBUTES) + " ", *lines, ""]))
    write(folder / "identity_CelebA.txt", "000001.jpg 2880\n000002.jpg 7\n000003.jpg 2880\n")
    write(folder / "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    zeros = "\n".join(f"{name} 0 0 0 0" for name in VALUES)
    for name in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt"):
        write(folder / name, f"3\na b c d\n{zeros}\n")
    return folder


def test_celeba(tmp_path: Path, take: Take, celeba: Path) -> None:
    truth = CelebA(str(tmp_path), "all", ["attr", "identity"])
    assert truth.attr_names[:3] == ATTRIBUTES
    plain = take(celeba)
    assert plain.found == (
        "CelebA: 3 images, list_attr_celeba.txt, identity_CelebA.txt, list_eval_partition.txt"
    )
    smiling, identity = take(celeba, label="attr:Smiling"), take(celeba, label="identity")
    for number, name in enumerate(VALUES):
        pixels, (attributes, person) = truth[number]
        np.testing.assert_array_equal(plain.pixels[name], np.asarray(pixels))
        assert plain.labels[name] == [
            one for one, value in zip(ATTRIBUTES, attributes, strict=True) if value
        ]
        assert smiling.labels[name] == ["Smiling" if attributes[1] else "not Smiling"]
        assert identity.labels[name] == [str(int(person))]
    assert take(celeba, split="valid").labels.keys() == {"000002.jpg"}


def test_celeba_in_a_zip_beside_its_lists_and_as_on_kaggle(
    tmp_path: Path, take: Take, celeba: Path
) -> None:
    shutil.make_archive(str(celeba / "img_align_celeba"), "zip", celeba, "img_align_celeba")
    expected = take(celeba, label="attr:Male").labels  # the zip is a copy of the folder
    shutil.rmtree(celeba / "img_align_celeba")
    assert take(celeba, label="attr:Male").labels == expected
    assert take(celeba / "img_align_celeba.zip", label="attr:Male").labels == expected
    kaggle = tmp_path / "archive"
    (kaggle / "img_align_celeba").mkdir(parents=True)
    with zipfile.ZipFile(celeba / "img_align_celeba.zip") as archive:
        archive.extractall(kaggle / "img_align_celeba")
    lines = [f"{name},{','.join(map(str, row))}" for name, row in VALUES.items()]
    write(
        kaggle / "list_attr_celeba.csv", "\r\n".join([f"image_id,{','.join(ATTRIBUTES)}", *lines])
    )
    write(kaggle / "list_eval_partition.csv", "image_id,partition\n000001.jpg,2\n")
    assert take(kaggle, label="attr:Male").labels == expected
    assert take(kaggle, split="test").labels.keys() == {"000001.jpg"}


def test_mistakes_with_celeba(take: Take, celeba: Path) -> None:
    with pytest.raises(UserError, match="--label attr:Bald: unknown; choose from Male, Smiling"):
        take(celeba, label="attr:Bald")
    with pytest.raises(UserError, match="--label hair: unknown for CelebA; choose attr:NAME or"):
        take(celeba, label="hair")
    with (celeba / "list_attr_celeba.txt").open("a") as file:
        file.write("000003.jpg 1\n")
    assert take(celeba).problems == ["parse_error: row 5: 1 values, 3 names"]
    (celeba / "identity_CelebA.txt").unlink()
    (celeba / "list_attr_celeba.txt").write_text("000001.jpg 1 1 1\n")
    assert take(celeba).problems == [
        "parse_error: row 1: no line with the names of the attributes before it"
    ]
    with pytest.raises(UserError, match=r"identity_CelebA\.txt is missing; put it beside the im"):
        take(celeba, label="identity")
    (celeba / "list_attr_celeba.txt").unlink()
    assert take(celeba, split="train", form="celeba").labels == {"000001.jpg": []}


# Pascal VOC


def annotation(*objects: tuple[str, tuple[int, int, int, int]]) -> str:
    inner = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    return f"<annotation><folder>x</folder>{inner}</annotation>"


def test_voc(tmp_path: Path, take: Take) -> None:
    base = tmp_path / "VOCdevkit/VOC2012"
    for number, objects in enumerate([
        (("cat", (1, 1, 4, 4)), ("dog", (2, 2, 12, 10))), (("dog", (0, 0, 5, 5)),),
    ]):  # fmt: skip
        write(base / f"JPEGImages/{number}.jpg", png(number))
        write(base / f"Annotations/{number}.xml", annotation(*objects))
    write(base / "ImageSets/Main/train.txt", "0\n1\n")
    done = take(tmp_path / "VOCdevkit")
    assert done.found == "images with boxes (Pascal VOC): 2 images, 2 XML files"
    assert done.labels == {"0.jpg": ["dog", "cat"], "1.jpg": ["dog"]}
    truth = datasets.VOCDetection(str(tmp_path), "2012", "train")
    for number, (pixels, target) in enumerate(truth):
        boxes = [
            [float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
            for one in target["annotation"]["object"]
        ]
        np.testing.assert_array_equal(done.pixels[f"{number}.jpg"], np.asarray(pixels))
        assert sorted(done.boxes[f"{number}.jpg"]) == sorted(boxes)


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Stanford Dogs: two tars, annotations without an extension."""
    folder = tmp_path / "dogs"
    folder.mkdir()
    boxes = {}
    for number, breed in enumerate(("n02085620-Chihuahua", "n02085782-Japanese_spaniel")):
        name = f"{breed}/{breed[:9]}_{number}"
        boxes[name] = annotation((breed.partition("-")[2], (2, 1, 14, 11)))
        write(tmp_path / f"src/Images/{name}.jpg", png(number))
        write(tmp_path / f"src/Annotation/{name}", boxes[name])
    for name, source in (("images.tar", "Images"), ("annotation.tar", "Annotation")):
        with tarfile.open(folder / name, "w") as archive:
            archive.add(tmp_path / "src" / source, source)
    return folder


def test_stanford_dogs(tmp_path: Path, take: Take, dogs: Path) -> None:
    expected = {
        "n02085620_0.jpg": ["Chihuahua"], "n02085782_1.jpg": ["Japanese_spaniel"]
    }  # fmt: skip
    for path in (dogs, dogs / "images.tar", tmp_path / "src"):
        done = take(path)
        assert done.labels == expected
        assert done.boxes == {name: [[2, 1, 14, 11]] for name in expected}
    (dogs / "annotation.tar").unlink()
    done = take(dogs / "images.tar")
    assert done.labels == {
        "n02085620_0.jpg": ["n02085620-Chihuahua"],
        "n02085782_1.jpg": ["n02085782-Japanese_spaniel"],
    }


def test_images_of_voc_with_one_name_in_two_folders(tmp_path: Path, take: Take) -> None:
    folder = tmp_path / "in"
    for number, kind in enumerate(("cat", "dog", "bird")):
        write(folder / f"Images/{kind}/0001.png", png(number))
    for number, kind in enumerate(("cat", "dog")):
        write(folder / f"Annotation/{kind}/0001.xml", annotation((f"a {kind}", (number, 1, 9, 9))))
    found = {row["url"].split("/")[-2]: row for row in take(folder).listed}
    assert {kind: row["labels"] for kind, row in found.items()} == {
        "cat": ["a cat"], "dog": ["a dog"], "bird": ["bird"]
    }  # fmt: skip
    assert [found[kind].get("boxes") for kind in ("cat", "dog", "bird")] == [
        [[0, 1, 9, 9]], [[1, 1, 9, 9]], None,
    ]  # fmt: skip


def test_annotations_of_voc_that_fit_no_folder(tmp_path: Path, take: Take) -> None:
    """One is used if it is the only one of this name, as are those of masks."""
    folder = tmp_path / "in"
    for part in ("VOC2007", "VOC2012"):
        for kind in ("JPEGImages", "SegmentationClass"):
            write(folder / f"{part}/{kind}/0001.png", png(len(part + kind)))
        write(folder / f"{part}/Annotations/0001.xml", annotation((part, (0, 0, 9, 9))))
    listed = take(folder).listed
    assert len(listed) == 4
    assert all(row["labels"] == [row["url"].split("/")[-3]] for row in listed)
    for name in ("a", "b"):
        write(tmp_path / f"flat/Annotations/{name}/0.xml", annotation((name, (0, 0, 9, 9))))
    write(tmp_path / "flat/0.png", png(0))
    write(tmp_path / "flat/1.png", png(1))
    write(tmp_path / "flat/Annotations/b/1.xml", annotation(("c", (0, 0, 9, 9))))
    done = take(tmp_path / "flat")
    assert done.labels == {"1.png": ["c"]}
    assert done.problems == [
        "parse_error: several annotations of this name: Annotations/a/0, Annotations/b/0; put "
        "them into the folders of their images"
    ]


@pytest.mark.parametrize(
    "text",
    ["", "<annotation><object>", "<html/>", "<annotation><object><bndbox/></object></annotation>",
     annotation(("x", (0, 0, 1, 1))).replace("<xmin>0", "<xmin>nan"), "\0" * 20,
     '<!DOCTYPE a [<!ENTITY e SYSTEM "/etc/passwd">]><annotation><object>&e;</annotation>'],
)  # fmt: skip
def test_a_damaged_annotation_costs_its_image(tmp_path: Path, take: Take, text: str) -> None:
    for number in range(2):
        write(tmp_path / f"in/{number}.png", png(number))
    write(tmp_path / "in/Annotations/0.xml", text)
    write(tmp_path / "in/Annotations/1.xml", annotation(("x", (1, 2, 3, 4))))
    done = take(tmp_path / "in")
    assert done.boxes == {"1.png": [[1, 2, 3, 4]]}
    (problem,) = done.problems
    assert problem.startswith("parse_error: not an annotation: ")

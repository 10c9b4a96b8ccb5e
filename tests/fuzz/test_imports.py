"""Datasets of every format with damaged bytes: import gives images, typed failures or one line.

LMDB is not among them: its library trusts the pages of a file.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.test_archives import PATCHES, project, take

IMPORTS = Path(__file__).parents[1] / "data/imports"
IMAGE = (IMPORTS / "images/0.png").read_bytes()
PIXELS = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
XML = """<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>
<ymax>8</ymax></bndbox></object></annotation>"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    "categories": [{"id": 3, "name": "cat"}],
}

FORMATS: dict[str, dict[str, bytes]] = {
    "mnist": {
        "train-images-idx3-ubyte": b"\0\0\x08\3\0\0\0\2\0\0\0\3\0\0\0\4" + bytes(range(24)),
        "train-labels-idx1-ubyte": b"\0\0\x08\1\0\0\0\2\7\3",
    },
    "cifar binary": {
        "data_batch_1.bin": b"".join(b"\2" + row.tobytes() for row in PIXELS),
        "batches.meta.txt": b"a\nb\nc\n",
    },
    "cifar": {
        "data_batch_1": pickle.dumps({b"data": PIXELS, b"labels": [1, 2]}, protocol=2),
        "batches.meta": pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=2),
    },
    "celeba": {
        "img_align_celeba/000001.png": IMAGE,
        "list_attr_celeba.txt": b"1\nMale Young\n000001.png -1  1\n",
        "list_eval_partition.txt": b"000001.png 0\n",
    },
    "voc": {"JPEGImages/a.png": IMAGE, "Annotations/a.xml": XML.encode()},
    "coco": {"a.png": IMAGE, "b.png": IMAGE, "instances_x.json": json.dumps(COCO).encode()},
    "nvlabs": {
        "0/a.png": IMAGE,
        "dataset.json": b'{"labels": [["0\\\\a.png", [0, 1]]], "label_names": ["x", "y"]}',
    },
}


def write_format(name: str, folder: Path) -> None:
    if name in FORMATS:
        for file, data in FORMATS[name].items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
    else:
        shutil.copytree(IMPORTS / name, folder, dirs_exist_ok=True)


NAMES = (*FORMATS, "img2dataset/webdataset", "img2dataset/files", "img2dataset/parquet",
         "img2dataset/tfrecord", "huggingface", "arrow")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(patches=PATCHES, place=st.integers(0, 99), cut=st.integers(0, 60), at_end=st.booleans())
def test_damaged_bytes(
    name: str, patches: list[tuple[int, bytes]], place: int, cut: int, at_end: bool
) -> None:
    def damage(folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[place % len(files)]
        data = bytearray(path.read_bytes())
        for offset, new in patches:
            offset %= len(data)
            data[offset : offset + len(new)] = new
        path.write_bytes(data[: len(data) - cut] if at_end else data)

    run(name, damage)


def run(name: str, damage: Callable[[Path], None]) -> int:
    """Import a damaged dataset twice: the second time brings nothing new."""
    with TemporaryDirectory() as work, project() as (_, dataset, log):
        write_format(name, Path(work) / "in")
        damage(Path(work) / "in")
        result, found = take(Path(work) / "in", dataset, log)
        again, same = take(Path(work) / "in", dataset, log)
        assert same == found
        assert again is None or again.images == 0
        return 0 if result is None else result.images


@pytest.mark.parametrize("name", NAMES)
def test_without_damage_all_images_arrive(name: str) -> None:
    assert run(name, lambda _: None) >= 1

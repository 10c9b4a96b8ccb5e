"""Thumbnails are made once, survive kills, and disappear with what is forgotten."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.curate import thumbnails
from pipeline.curate.thumbnails import load_thumbnails, make_thumbnails
from pipeline.originals.parts import PartFiles, planned_parts, read_part
from pipeline.shards.forget import forget
from tests.helpers.processes import child_env


def images_of(shop: Any, part: str) -> dict[str, Image.Image | None]:
    made = load_thumbnails(shop.dataset, part)
    assert made is not None
    data = made.path.read_bytes()
    return {
        f"{key:016x}": Image.open(io.BytesIO(data[begin:end])) if end > begin else None
        for key, begin, end in zip(made.keys, made.begins, made.ends, strict=True)
    }


def test_each_image_has_one_and_they_are_made_once(shop: Any, log: Any) -> None:
    images = [shop.Served(shop.encoded(shop.picture(1, (400, 300))), "a.jpg"), *shop.served(3)]
    shop.add(images[:2])
    shop.add(images[2:])
    make_thumbnails(shop.dataset, log)
    parts = planned_parts(shop.dataset)
    made = {key: image for part in parts for key, image in images_of(shop, part).items()}
    assert made.keys() == {one.key for one in images}
    sizes = [image.size for one in images if (image := made[one.key])]
    assert sizes == [(160, 120), (120, 90), (120, 90), (120, 90)]
    want = np.asarray(shop.picture(1, (400, 300)).resize((160, 120)), float)
    first = made[images[0].key]
    assert first is not None
    assert np.abs(np.asarray(first, float) - want).mean() < 6
    before = {path: path.stat().st_mtime_ns for path in shop.dataset.data_dir.rglob("curate/*")}
    make_thumbnails(shop.dataset, log)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(before) == 2 * len(parts)


@pytest.mark.parametrize("ending", ["jpgs", "npz"])
def test_damaged_and_outdated_ones_are_made_again(shop: Any, log: Any, ending: str) -> None:
    shop.add(shop.served(2))
    make_thumbnails(shop.dataset, log)
    part = planned_parts(shop.dataset)[0]
    file = thumbnails.thumbnails_dir(shop.dataset) / f"{part}.{ending}"
    file.write_bytes(file.read_bytes()[:-9])
    assert load_thumbnails(shop.dataset, part) is None
    make_thumbnails(shop.dataset, log)
    assert all(images_of(shop, part).values())


def test_a_damaged_original_has_none_and_harms_no_other(shop: Any, log: Any) -> None:
    images = shop.served(3)
    shop.add(images)
    part = planned_parts(shop.dataset)[0]
    record = next(one for one in read_part(shop.dataset, part) if one.key == images[1].key)
    with PartFiles(shop.dataset, part).tar.open("r+b") as tar:
        tar.seek(record.offset)
        tar.write(bytes(record.bytes))
    make_thumbnails(shop.dataset, log)
    assert [one.key for one in images if images_of(shop, part)[one.key] is None] == [images[1].key]


def test_what_is_forgotten_leaves_no_thumbnail(shop: Any, log: Any) -> None:
    images = shop.served(3)
    shop.add(images)
    make_thumbnails(shop.dataset, log)
    part = planned_parts(shop.dataset)[0]
    forget(shop.recipe(), shop.dataset, log, keys=[images[0].key])
    folder = thumbnails.thumbnails_dir(shop.dataset)
    assert [path.name for path in folder.iterdir() if path.name != "lock"] == []
    make_thumbnails(shop.dataset, log)
    assert images_of(shop, part).keys() == {one.key for one in images[1:]}


KILLED = """
import sys
from pathlib import Path
from pipeline.contract import DatasetPaths
from pipeline.curate import thumbnails
from pipeline.events import EventLog
made = 0
real = thumbnails._thumbnail
def slow(record, data):
    global made
    made += 1
    if made == 5:  # in the second part
        print("now", flush=True)
        sys.stdin.read()
    return real(record, data)
thumbnails._thumbnail = slow
thumbnails.cpu_count = lambda: 1
dataset = DatasetPaths("shells", Path(sys.argv[1]))
with EventLog(dataset, "test") as log:
    thumbnails.make_thumbnails(dataset, log)
"""


def test_killed_it_keeps_the_finished_parts(shop: Any, log: Any) -> None:
    shop.add(shop.served(3))
    shop.add(shop.served(3, start=10))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(shop.root)], env=child_env(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    one, other = planned_parts(shop.dataset)
    finished = load_thumbnails(shop.dataset, one)
    assert finished is not None
    assert load_thumbnails(shop.dataset, other) is None
    before = finished.path.stat().st_mtime_ns
    make_thumbnails(shop.dataset, log)
    assert finished.path.stat().st_mtime_ns == before
    assert all(images_of(shop, other).values())
    assert not list(thumbnails.thumbnails_dir(shop.dataset).glob(".*.tmp"))

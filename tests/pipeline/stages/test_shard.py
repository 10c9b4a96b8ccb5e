"""Shards: what is in them, that equal input gives equal bytes, and that kills cost nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contract import DatasetPaths, UserError, load_index
from pipeline.imaging.images import decode_image
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.select.stage import select
from pipeline.shards.stage import ShardResult, shard
from pipeline.shards.verify import verify

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def build(shop: Any, log: Any) -> Callable[..., ShardResult]:
    """Select and shard with these options of the shards."""

    def run(select_options: dict[str, Any] | None = None, **options: Any) -> ShardResult:
        recipe = shop.recipe(select_options, **options)
        select(recipe, shop.dataset, log)
        return shard(recipe, shop.dataset, log, workers=1)

    return run


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def psnr(pixels: np.ndarray, truth: Image.Image) -> float:
    """Peak signal to noise ratio in dB, for values up to 255."""
    error = np.square(pixels - np.asarray(truth, float)).mean()
    return float(10 * np.log10(255**2 / error))


def samples(dataset: DatasetPaths) -> dict[str, dict[str, bytes]]:
    """All samples by key, each its members by ending."""
    found: dict[str, dict[str, bytes]] = {}
    for path in load_index(dataset.manifest_dir)[1]:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[ending] = file.read()
    return found


def test_the_shards_hold_every_kept_image_once(shop: Any, build: Any) -> None:
    images = shop.served(25, labels=("shell", "Conus"))
    shop.add(images)
    result = build(samples_per_shard=10)
    assert (result.samples, result.shards, result.made, result.failed) == (25, 3, 3, 0)
    index, paths = load_index(shop.dataset.manifest_dir)
    assert [entry.nsamples for entry in index.shardlist] == [10, 10, 5]
    assert [Path(path).name for path in paths] == [f"shells-{n:06d}.tar" for n in range(3)]
    for entry, path in zip(index.shardlist, paths, strict=True):
        data = Path(path).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert index.counts == {"downloaded": 25, "kept": 25, "rejected": 0, "samples": 25}
    assert (index.resolution, index.channels, index.format) == ((16, 16), 3, "webp")
    found = samples(shop.dataset)
    assert set(found) == {image.key for image in images}
    for image in images:
        facts = json.loads(found[image.key]["json"])
        assert facts["url"] == image.url
        assert facts["labels"] == ["shell", "Conus"]
        assert facts["crop"] == [15.0, 0.0, 105.0, 90.0]
        assert facts["original"]["sha256"] == hashlib.sha256(image.data).hexdigest()
        assert (facts["original"]["width"], facts["original"]["height"]) == (120, 90)
    # The order is a shuffle: neither the manifest's nor that of the keys.
    order = list(found)
    assert order not in ([image.key for image in images], sorted(order))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"format": "webp"}, "WEBP"),
        ({"format": "webp", "quality": 90, "resolution": 64}, "WEBP"),
        ({"format": "png", "channels": 1, "resolution": 28}, "PNG"),
        ({"format": "jpg", "resolution": 32}, "JPEG"),
        ({"format": "jpg", "quality": 80, "channels": 1}, "JPEG"),
    ],
)
def test_a_sample_is_the_center_of_its_original(
    shop: Any, build: Any, options: dict[str, Any], kind: str
) -> None:
    pictures = [shop.picture(n, (480, 360), (3, 4)) for n in range(3)]
    images = [shop.Served(shop.encoded(one), f"{n}") for n, one in enumerate(pictures)]
    shop.add(images)
    build(**options)
    side, mode = options.get("resolution", 16), "L" if options.get("channels") == 1 else "RGB"
    for image in images:
        data = samples(shop.dataset)[image.key][options["format"]]
        with Image.open(io.BytesIO(data)) as made:
            assert (made.format, made.mode, made.size) == (kind, mode, (side, side))
            pixels = np.asarray(made, float)
        whole = Image.open(io.BytesIO(image.data)).convert(mode)
        truth = whole.resize((side, side), Image.Resampling.LANCZOS, box=(60, 0, 420, 360))
        lossy = kind == "JPEG" or "quality" in options
        assert psnr(pixels, truth) > (30 if lossy else 45)


def test_class_numbers_follow_the_sorted_labels(shop: Any, build: Any) -> None:
    groups = {"Conus": shop.served(3, 0, labels=("x", "Conus")),
              "Bursa": shop.served(3, 10, labels=("x", "Bursa"))}  # fmt: skip
    for images in groups.values():
        shop.add(images)
    build(class_label=1)
    assert load_index(shop.dataset.manifest_dir)[0].labels == ("Bursa", "Conus")
    found = samples(shop.dataset)
    for number, name in enumerate(("Bursa", "Conus")):
        assert {found[image.key]["cls"] for image in groups[name]} == {str(number).encode()}


READERS = """
import json, sys, wids
shards = wids.ShardListDataset(sys.argv[1])
by_index = [(s["__key__"], s[".png"].size) for s in (shards[i] for i in range(len(shards)))]
exec(sys.argv[2])
[[images, classes]] = batches
stream = wds.WebDataset(load_index(sys.argv[1])[1], shardshuffle=False).decode("pil")
by_stream = [(s["__key__"], s["png"].size, s["cls"], s["json"]["license"]) for s in stream]
pixels = sorted(s.numpy().tolist() for s in images)
print(json.dumps([by_index, by_stream, list(images.shape), str(images.dtype), classes.tolist(),
    pixels == sorted(pil_to_tensor(s["png"]).tolist() for s in stream)]))
"""


def example() -> str:
    """The example of the manual."""
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    blocks: list[str] = re.findall(r"```python\n(.*?)```", page, re.S)
    [found] = [block for block in blocks if "webdataset" in block]
    return found


def test_wids_and_webdataset_read_them_as_in_the_manual(
    shop: Any, build: Any, tmp_path: Path
) -> None:
    images = shop.served(12, labels=("a",))
    shop.add(images)
    build(samples_per_shard=5, class_label=0, format="png")
    index = str(shop.dataset.shard_index)
    code = example().replace("manifests/shells", index)
    assert index in code
    # Both leave files open, so they read in a process of their own.
    said = subprocess.run(
        [sys.executable, "-c", READERS, index, code],
        env={**os.environ, "WIDS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path.cwd())},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    by_index, by_stream, *batch = json.loads(said.splitlines()[-1])
    keys = sorted(image.key for image in images)
    assert sorted(by_index) == [[key, [16, 16]] for key in keys]
    assert sorted(by_stream) == [[key, [16, 16], 0, "CC0"] for key in keys]
    assert batch == [[12, 3, 16, 16], "torch.uint8", [0] * 12, True]


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_whatever_the_parts(
    shop: Any, build: Any, log: Any, tmp_path: Path, tree: Tree
) -> None:
    images = shop.served(21)
    shop.add(images)
    build(samples_per_shard=4)
    other = type(shop)(tmp_path / "other")
    for start in (14, 7, 0):
        other.add(images[start : start + 7])
    recipe = other.recipe(samples_per_shard=4)
    select(recipe, other.dataset, log)
    shard(recipe, other.dataset, log, workers=2)
    assert tree(other.dataset.shards_dir) == tree(shop.dataset.shards_dir)
    assert other.dataset.shard_index.read_bytes() == shop.dataset.shard_index.read_bytes()


def test_running_again_writes_nothing(shop: Any, build: Any) -> None:
    shop.add(shop.served(12))
    build()
    folders = (shop.dataset.data_dir, shop.dataset.manifest_dir)
    before = [times(folder) for folder in folders]
    again = build()
    assert (again.made, again.reused) == (0, 2)
    after = [times(folder) for folder in folders]
    for lists in (*before, *after):
        lists.pop("kept.jsonl", None)  # select writes its lists anew, with the same bytes
        lists.pop("rejected.jsonl", None)
    assert after == before


def test_what_differs_is_made_again_and_the_rest_removed(shop: Any, build: Any) -> None:
    shop.add(shop.served(30))
    build(samples_per_shard=5)
    assert build(samples_per_shard=15).made == 2
    assert sorted(path.name for path in shop.dataset.shards_dir.iterdir()) == [
        "shells-000000.json", "shells-000000.tar", "shells-000001.json", "shells-000001.tar",
    ]  # fmt: skip
    assert build(samples_per_shard=15, seed=1).made == 2
    assert build(samples_per_shard=15, seed=1, format="png").made == 2
    shop.add(shop.served(1, start=99))
    assert build(samples_per_shard=15, seed=1, format="png").samples == 31
    assert len(samples(shop.dataset)) == 31


def test_a_damaged_tar_of_another_size_is_made_again(shop: Any, build: Any, tree: Tree) -> None:
    shop.add(shop.served(12))
    build(samples_per_shard=4)
    before = tree(shop.dataset.shards_dir)
    tar = shop.dataset.shards_dir / "shells-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-700])
    assert build(samples_per_shard=4).made == 1
    assert tree(shop.dataset.shards_dir) == before


def test_originals_can_be_dropped_once_sharded(shop: Any, build: Any) -> None:
    shop.add(shop.served(12))
    assert build(keep_originals=False).samples == 12
    parts = [PartFiles(shop.dataset, part) for part in planned_parts(shop.dataset)]
    assert [part.tar.exists() for part in parts] == [False]
    assert [part.journal.exists() and part.summary.exists() for part in parts] == [True]
    assert build(keep_originals=False).reused == 2
    index = shop.dataset.shard_index.read_bytes()
    with pytest.raises(UserError, match=r"shells-000000\.tar"):
        build(keep_originals=False, resolution=32)
    assert build(keep_originals=False).samples == 12
    assert shop.dataset.shard_index.read_bytes() == index


@pytest.mark.parametrize(
    ("kind", "bit"), [("damaged", b"\x01"), ("damaged", b"\xff"), ("undecodable", b"\xff")]
)
def test_an_original_that_is_not_the_recorded_one_is_left_out_and_named(
    shop: Any, build: Any, log: Any, kind: str, bit: bytes
) -> None:
    images = shop.served(6)
    shop.add(images)
    part = PartFiles(shop.dataset, planned_parts(shop.dataset)[0])
    good = images[2].data
    # One bit of the pixels, which decodes all the same, or no image at all.
    bad = bit * len(good) if bit == b"\xff" else good[:900] + bytes([good[900] ^ 1]) + good[901:]
    part.tar.write_bytes(part.tar.read_bytes().replace(good, bad))
    if kind == "undecodable":  # the record speaks of these very bytes
        digests = [hashlib.sha256(one).hexdigest() for one in (good, bad)]
        part.journal.write_text(part.journal.read_text().replace(*digests))
    result = build()
    assert (result.samples, result.failed) == (5, 1)
    assert images[2].key not in samples(shop.dataset)
    assert log.failed == {kind: 1}
    failure = json.loads(shop.dataset.failure_log.read_text())
    assert (failure["stage"], failure["key"]) == ("shard", images[2].key)
    assert part.part in failure["detail"] or kind == "undecodable"
    assert build().made == 0


def test_an_original_that_is_put_right_makes_its_shard_again(
    shop: Any, build: Any, log: Any, tree: Tree
) -> None:
    images = shop.served(9)
    shop.add(images)
    build(samples_per_shard=3)
    sound = tree(shop.dataset.shards_dir)
    part = PartFiles(shop.dataset, planned_parts(shop.dataset)[0])
    good = part.tar.read_bytes()
    for file in shop.dataset.shards_dir.iterdir():
        file.unlink()
    part.tar.write_bytes(good.replace(images[4].data, bytes(len(images[4].data))))
    assert build(samples_per_shard=3).samples == 8
    recipe = shop.recipe(None, samples_per_shard=3)
    assert verify(recipe, shop.dataset, log, workers=1).is_valid
    assert build(samples_per_shard=3).made == 0
    part.tar.write_bytes(good)
    assert not verify(recipe, shop.dataset, log, workers=1).is_valid
    assert (result := build(samples_per_shard=3)).made == 1
    assert (result.samples, result.failed) == (9, 0)
    assert tree(shop.dataset.shards_dir) == sound
    assert verify(recipe, shop.dataset, log, workers=1).is_valid


def test_a_variant_is_made_from_the_same_originals(shop: Any, build: Any, log: Any) -> None:
    shop.add(shop.served(8))
    build()
    shard(shop.recipe(resolution=32), shop.dataset, log, workers=1, variant="32")
    small, _ = load_index(shop.dataset.manifest_dir)
    large, paths = load_index(shop.root / "manifests" / "shells-32")
    assert (small.resolution, large.resolution) == ((16, 16), (32, 32))
    assert large.name == "shells-32"
    assert paths == [str(shop.root / "data/shells-32/shards/shells-32-000000.tar")]
    assert set(samples(DatasetPaths("shells-32", shop.root))) == set(samples(shop.dataset))


def test_without_a_kept_list_it_says_what_to_do(shop: Any, log: Any) -> None:
    with pytest.raises(UserError, match="run select first"):
        shard(shop.recipe(), shop.dataset, log)
    shop.add(shop.served(2))
    select(shop.recipe({"min_blur": 1e9}), shop.dataset, log)
    with pytest.raises(UserError, match="nothing was kept"):
        shard(shop.recipe(), shop.dataset, log)


SHARD = """
import sys
from pathlib import Path
from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.recipe import Recipe
from pipeline.shards.stage import shard
from pipeline.config_io import parse_config
import json
recipe = parse_config(Recipe, json.loads(sys.argv[2]), "recipe")
dataset = DatasetPaths("shells", Path(sys.argv[1]))
if __name__ == "__main__":
    with EventLog(dataset, "test") as log:
        shard(recipe, dataset, log, workers=2)
"""


def children(pid: int) -> set[int]:
    """The processes below `pid`."""
    below = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            below |= {int(stat.parent.name), *children(int(stat.parent.name))}
    return below


def wait_for(happened: Callable[[], bool], what: str) -> None:
    for _ in range(10_000):
        if happened():
            return
        time.sleep(0.02)
    pytest.fail(f"not within 200 s: {what}")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_kill_costs_only_the_shards_in_hand_and_leaves_no_worker(
    shop: Any, build: Any, log: Any, tmp_path: Path, tree: Tree
) -> None:
    # Slow enough to be killed in the middle: large samples, several shards.
    options = {"resolution": 256, "samples_per_shard": 6, "format": "png"}
    shop.add(shop.served(60))
    recipe = shop.recipe(**options)
    select(recipe, shop.dataset, log)
    script = tmp_path / "run.py"
    script.write_text(SHARD)
    values = {
        "source": {"kind": "html", "start": ["https://shells.example/"]},
        "select": {"min_side": 8},
        "shards": {**options},
    }
    command = [sys.executable, str(script), str(shop.root), json.dumps(values)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    made = shop.dataset.shards_dir
    wait_for(lambda: len(list(made.glob("*.json"))) >= 2, "two shards")
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "no workers left")
    assert not shop.dataset.shard_index.exists()
    good = {path.with_suffix(".tar"): path.with_suffix(".tar").stat().st_mtime_ns
            for path in made.glob("*.json")}  # fmt: skip
    assert 2 <= len(good) < 10
    result = shard(recipe, shop.dataset, log, workers=2)
    assert (result.shards, result.reused) == (10, len(good))
    assert {path: path.stat().st_mtime_ns for path in good} == good
    interrupted = tree(made)
    other = type(shop)(tmp_path / "other")
    other.add(shop.served(60))
    select(recipe, other.dataset, log)
    shard(recipe, other.dataset, log, workers=1)
    assert tree(other.dataset.shards_dir) == interrupted


def test_a_turned_jpeg_is_made_upright(shop: Any, build: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    image = shop.picture(3, (270, 360), (4, 3))
    data = shop.encoded(image.rotate(90, expand=True), exif=turned)
    served = shop.Served(data, "turned")
    shop.add([served])
    build(format="png", resolution=24)
    made = np.asarray(Image.open(io.BytesIO(samples(shop.dataset)[served.key]["png"])), float)
    upright = decode_image(data, max_pixels=10**6).image
    truth = upright.resize((24, 24), Image.Resampling.LANCZOS, box=(0, 45, 270, 315))
    assert psnr(made, truth) > 40
    assert psnr(made, truth.rotate(90)) < 20

"""The channels in which shards are read: those of other tools, and others than the index says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shellgan
from pipeline.errors import UserError
from pipeline.imaging.alpha import premultiply
from tests.helpers.foreign_shards import drawn, file_of, write_tar
from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import ShardDataset, open_shard_dataset

OVER_WHITE = "a.tar: 0); --data.channels 4 keeps it"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rgba_tar(path: Path, side: int = 16, count: int = 12) -> Path:
    images = (drawn(number, side, side, "RGBA") for number in range(count))
    return write_tar(
        path,
        [
            {"__key__": f"{number}", "png": file_of(image, "PNG")}
            for number, image in enumerate(images)
        ],
    )


def opened(where: Path | str, resolution: int = 0, **data: Any) -> ShardDataset:
    return open_shard_dataset(where, resolution, DataOptions(**data))


def pixels_of(source: ShardDataset, count: int, **data: Any) -> set[bytes]:
    with Loader(source, Config(batch=count, data=DataOptions(**data))) as loader:
        batch = next(loader).images.permute(0, 2, 3, 1).numpy()
    assert batch.shape[3] == source.channels
    return {image.tobytes() for image in batch}


@pytest.mark.parametrize("fit", ["", "crop", "pad", "stretch"])
def test_four_channels_keep_transparency(tmp_path: Path, fit: Any) -> None:
    path, size = rgba_tar(tmp_path / "a.tar"), 16 if fit else 0
    source = opened(path, size, fit=fit, channels=4)
    assert source.channels == source.image_shape.channels == 4
    assert not any("transparency" in note for note in source.notes)
    expected = {
        premultiply(np.asarray(drawn(number, 16, 16, "RGBA"))).tobytes() for number in range(12)
    }
    assert pixels_of(source, 12, channels=4) == expected
    plain = opened(path, size, fit=fit)
    assert plain.channels == 3
    assert any(note.endswith(OVER_WHITE) for note in plain.notes)
    assert plain.index.digest == source.index.digest


def test_opaque_and_gray_images_are_read_with_any_channels(tmp_path: Path) -> None:
    gray = [{"__key__": "g", "jpg": file_of(drawn(1, 16, 16, "L"), "JPEG")}]
    path = write_tar(tmp_path / "a.tar", gray)
    assert opened(path).channels == 1
    assert opened(path).notes == opened(path, channels=3).notes
    for channels in (1, 3, 4):
        (image,) = pixels_of(opened(path, channels=channels), 1)
        pixels = np.frombuffer(image, np.uint8).reshape(16, 16, channels)
        assert (pixels[..., 0] == pixels[..., min(2, channels - 1)]).all()
        assert channels != 4 or (pixels[..., 3] == 255).all()


def test_channels_of_an_incomplete_index_are_used(tmp_path: Path) -> None:
    shards = SmallShards(tmp_path, channels=4, labels=("cone", "whelk"))
    whole = pixels_of(opened(shards.manifest), 100)
    relabelled = opened(shards.manifest, label="cls")
    assert relabelled.channels == 4
    assert pixels_of(relabelled, 100, label="cls") == whole
    opaque = opened(shards.manifest, channels=3)
    assert all(len(image) == 16 * 16 * 3 for image in pixels_of(opaque, 100, channels=3))
    stored = shards.manifest / "shards.json"
    index = json.loads(stored.read_text())
    del index["shardlist"][0]["sha256"]
    for stated in (True, 2, "4", None, [4]):
        stored.write_text(json.dumps({**index, "channels": stated}))
        assert opened(shards.manifest).channels == 3


def test_opaque_shards_become_opaque_with_alpha(tmp_path: Path) -> None:
    shards = SmallShards(tmp_path)
    for image in pixels_of(opened(shards.manifest, channels=4), 50, channels=4):
        assert set(image[3::4]) == {255}


def test_a_dataset_tells_its_channels_to_training(tmp_path: Path) -> None:
    path = rgba_tar(tmp_path / "a.tar")
    dataset = shellgan.open_dataset(path, channels=4)
    assert dataset.training_options() == {"data.channels": "4"}
    assert next(iter(dataset))[0].shape == (4, 16, 16)


def test_a_run_keeps_its_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rgba_tar(tmp_path / "a.tar", count=30)
    four, more = ("--data.channels", "4"), ("--evaluate.kimg", "0", "--total-kimg", "0.08")
    assert fit_here("cut", "a.tar", *more, *four) == 0
    stored = json.loads((tmp_path / "runs/cut/config.json").read_text())
    assert stored["dataset"]["channels"] == stored["config"]["data.channels"] == 4
    # the configuration of a run of an earlier version has no such key
    assert fit_here("old", "a.tar", *more) == 0
    assert OVER_WHITE in capsys.readouterr().out
    before = json.loads((tmp_path / "runs/old/config.json").read_text())
    del before["config"]["data.channels"]
    (tmp_path / "runs/old/config.json").write_text(json.dumps(before))
    longer = (*more, "--total-kimg", "0.12")
    assert fit_here("old", "a.tar", *longer, *four) == 2
    said = "images have 3 channels in the run, 4 in the command; set --data.channels 3, or"
    assert said in capsys.readouterr().err
    assert fit_here("old", "a.tar", *longer) == 0
    from training import sample

    assert sample.main(["cut", "--n", "1", "--out", "a.png", "--device", "cpu"]) == 0
    with Image.open(io.BytesIO(Path("a.png").read_bytes())) as image:
        assert image.mode == "RGBA"


def test_images_that_cannot_be_read_are_named_with_the_reasons(tmp_path: Path) -> None:
    rows = [{"__key__": key, "jpg": data} for key, data in (("a/0", b"text"), ("a/1", b"GIF89a"))]
    path = write_tar(tmp_path / "a.tar", rows)
    with pytest.raises(UserError, match=r"a\.tar: none of the first images can be read") as caught:
        opened(path)
    assert "(a/0.jpg: not a supported image format; a/1.jpg: a damaged GIF)" in str(caught.value)

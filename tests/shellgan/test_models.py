"""Models stay those of their checkpoint, and take integer labels and images of any mode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import shellgan
from tests.helpers.small_shards import SmallShards
from tests.helpers.untrained_runs import make_run
from training.pretrained.inference import TrainedGenerator

SMALL = {
    "batch": 8, "resolution": 16, "generator.width": 4, "threads": 1, "generator.z_dim": 8,
    "discriminator.width": 4, "record.log_kimg": 0.016, "device": "cpu",
}  # fmt: skip


def test_a_model_stays_that_of_its_checkpoint(tmp_path: Path) -> None:
    SmallShards(tmp_path)

    def train(kimg: float) -> shellgan.Run:
        options = SMALL | {"total_kimg": kimg}
        return shellgan.train("manifests/small", "shells64", root=tmp_path, options=options)

    model = train(0.016).load(device="cpu")
    run = train(0.032)
    model.export(tmp_path / "exported")
    exported = shellgan.load(tmp_path / "exported", device="cpu")
    assert (model.seen, exported.seen) == (16, 16)
    assert np.array_equal(exported.sample(2), model.sample(2))
    assert not np.array_equal(run.load(device="cpu").sample(2), model.sample(2))
    assert model.evaluate(samples=50, real=100).seen == 16
    for path in (run.folder / "checkpoints").rglob("0000000016.*"):
        path.unlink()
    with pytest.raises(shellgan.UserError, match=r"no checkpoint '0\.016'; there are newest, .*32"):
        model.evaluate(samples=50, real=100)


def test_an_integer_is_the_number_of_a_class_and_a_text_its_name(tmp_path: Path) -> None:
    config = make_run(tmp_path / "runs" / "shells", "labelled") / "config.json"
    values = json.loads(config.read_text())
    values["dataset"]["labels"] = ["1", "0"]
    config.write_text(json.dumps(values))
    model = shellgan.load("shells", root=tmp_path, device="cpu")
    first, second = (model.sample(numbers=[7], label=name) for name in ("1", "0"))
    assert not np.array_equal(first, second)
    assert np.array_equal(model.sample(numbers=[7], label=0), first)
    assert np.array_equal(model.sample(numbers=[7], label=np.int64(1)), second)  # type: ignore[arg-type]
    for wrong in (-1, 2):
        with pytest.raises(shellgan.UserError, match=f"label: {wrong} is not an integer from 0 to"):
            model.sample(label=wrong)


class Unchanged(torch.nn.Module):
    """Translates each image to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: torch.Tensor, _labels: torch.Tensor) -> torch.Tensor:
        return images * self.one


BLACK = ("1", "CMYK", "F", "HSV", "I", "L", "LAB", "P", "RGB", "YCbCr")
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


@pytest.mark.parametrize("mode", BLACK + TRANSPARENT)
def test_images_of_any_mode_are_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(TrainedGenerator, "translator", lambda _self, _direction: Unchanged())
    make_run(tmp_path / "runs" / "some", "dcgan")
    is_black = mode in BLACK
    image = Image.new("RGB", (20, 12)).convert(mode) if is_black else Image.new(mode, (20, 12), 0)
    image.info["icc_profile"] = b"damaged"
    found = shellgan.load("some", root=tmp_path, device="cpu").translate([image])
    assert found.shape == (1, 16, 16, 3)
    assert np.abs(found.astype(int) - (0 if is_black else 255)).max() <= 1  # over white

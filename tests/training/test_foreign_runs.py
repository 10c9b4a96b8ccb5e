"""The commands of training on shards of other tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.training_runs import fit_here, metrics
from training import checkpoint, evaluate, nearest, probe

IMG2DATASET = Path(__file__).parents[1] / "data" / "imports" / "img2dataset" / "several_sizes"
FIT = ("--data.fit", "crop", "--evaluate.kimg", "0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(IMG2DATASET, tmp_path / "shells")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_img2dataset_run_is_trained_on_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    location = "shells/{000..002}.tar"
    assert fit_here("plain", location, "--evaluate.kimg", "0") == 2
    assert "several sizes" in capsys.readouterr().err
    assert fit_here("unlabelled", location, *FIT, "--total-kimg", "0.04") == 0
    assert "--data.label takes them from other members (json, txt)" in capsys.readouterr().out
    assert fit_here("plain", location, *FIT, "--data.label", "json:kind") == 0
    assert "3 of 3 shards have no sha256" in capsys.readouterr().out
    stored = json.loads((folder / "runs/plain/config.json").read_text())
    assert stored["dataset"]["labels"] == ["cone", "whelk"]
    assert stored["dataset"]["location"] == location
    assert stored["dataset"]["samples"] == 12
    assert stored["config"]["data.fit"] == "crop"
    assert stored["config"]["data.label"] == "json:kind"
    assert image_size(folder / "runs/plain/samples/0000000400.png")[0] >= 32


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def weights(run: Path) -> dict[str, Any]:
    state = checkpoint.list_checkpoints(run / "checkpoints")[0].data_path
    found: dict[str, Any] = torch.load(state, weights_only=True)["state"]["generator"]
    return found


def test_a_resumed_run_equals_an_uninterrupted_one(folder: Path) -> None:
    assert fit_here("whole", "shells", *FIT) == 0
    assert fit_here("parts", "shells", *FIT, "--total-kimg", "0.12") == 0
    assert fit_here("parts", "shells/*.tar", *FIT) == 0  # the same tars, named in another way
    whole, parts = weights(folder / "runs/whole"), weights(folder / "runs/parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert metrics(folder / "runs/whole")[-1] == metrics(folder / "runs/parts")[-1]
    assert fit_here("parts", "shells/00[01].tar", *FIT, "--total-kimg", "0.5") == 2


def test_tools_read_the_shards_of_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = ("--data.label", "json:kind")
    assert fit_here("plain", "shells", *FIT, *label, "--total-kimg", "0.08") == 0
    near = ["plain", "--device", "cpu", "--numbers", "1-2", "--k", "3", "--distance", "pixels"]
    assert nearest.main([*near, "--out", "near.png"]) == 0
    assert image_size(Path("near.png"))[0] >= 4 * 16
    # the run has a fit; another location is read in the run's size
    assert nearest.main([*near, "--shards", "shells/{000,001}.tar", "--out", "other.png"]) == 0
    target = "shells/000.tar"
    assert probe.main(["plain", "--device", "cpu", "--steps", "0", "--shards", "shells"]) == 0
    assert "trained on" in capsys.readouterr().out
    assert evaluate.main(["plain", "--shards", target, "--device", "cpu"]) == 2
    assert "only 4 real images" in capsys.readouterr().err

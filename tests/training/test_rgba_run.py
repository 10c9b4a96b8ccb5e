"""A run on samples with four channels, from training to every command that shows its images."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here, metrics
from tests.helpers.untrained_runs import make_run
from tests.training.test_presets import CPU, tiny
from training import best_checkpoint, evaluate, export, mix, nearest, project, sample, walk
from training.catalogue import image_shape
from training.data import Batch
from training.grid import generate_images
from training.latent.cli import latents_and_labels
from training.pretrained.inference import load_generator
from training.state import new_state
from training.step import Step


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["stylegan2-ada", "r3gan-64-small", "fastgan64", "projected64", "pacgan2", "wgan-gp"]
)
def test_networks_of_every_kind_train_with_alpha(name: str) -> None:
    config = tiny(name)
    shape = replace(image_shape(config), channels=4)
    state = new_state(config, shape, CPU)
    images = torch.randint(0, 256, (8, 4, shape.height, shape.width), dtype=torch.uint8)
    before = {key: value.clone() for key, value in state.generator.state_dict().items()}
    facts = Step(config, state, CPU)(
        [Batch(images, torch.zeros(8, dtype=torch.int64))] * config.n_critic
    )
    assert all(bool(torch.isfinite(value)) for value in facts.values())
    after = state.generator.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run `tiny` is, which no test changes."""
    folder = tmp_path_factory.mktemp("rgba")
    shards = SmallShards(folder / "set", sizes=(60, 60), channels=4)
    with contextlib.chdir(folder):
        assert fit_here(
            "tiny", shards, "--total-kimg", "0.08", "--augment.ada", "bgcfnc", "--augment.p", "0.5",
            "--evaluate.kimg", "0.08", "--evaluate.samples", "50", "--evaluate.real", "100",
            "--evaluate.background", "#336699",
        ) == 0  # fmt: skip
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder / "runs" / "tiny"


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def pixels_of(path: Path, mode: str = "RGBA") -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def test_the_run_records_its_channels_and_shows_a_checkerboard(run: Path) -> None:
    described = json.loads((run / "config.json").read_text())
    assert described["dataset"]["channels"] == 4
    assert described["config"]["evaluate.background"] == "#336699"
    assert any("fd_efficientnet_lite0" in row for row in metrics(run))
    best = best_checkpoint.best(run / "checkpoints")
    assert best is not None
    assert best.criterion.endswith("over #336699")
    for grid in (run / "samples").glob("*.png"):
        with Image.open(grid) as image:
            assert image.mode == "RGB"
    assert (run / "report.html").is_file()


def test_samples_are_rgba_files_of_what_the_generator_draws(run: Path, tmp_path: Path) -> None:
    assert sample.main(["tiny", "--numbers", "3", "--out", str(tmp_path / "a.png")]) == 0
    trained = load_generator(str(run), CPU)
    space = trained.space
    ws = space.map(*latents_and_labels(trained, [3], 0))
    (drawn,) = space.generate(ws, torch.zeros(1, dtype=torch.int64))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image).astype(int)
    assert np.array_equal(pixels[..., 3], drawn[..., 3])
    multiplied = pixels[..., :3] * pixels[..., 3:] / 255
    assert np.abs(multiplied - drawn[..., :3]).max() <= 1
    assert mix.main(["tiny", "--out", str(tmp_path / "b.png")]) == 0
    assert mode_of(tmp_path / "b.png") == "RGBA"


def test_colours_never_exceed_alpha_whatever_a_generator_draws(tmp_path: Path) -> None:
    """Otherwise a video would glow where the PNG of the same image is transparent."""
    trained = load_generator(str(make_run(tmp_path / "lively", "dcgan", "", 4)), CPU)
    z, labels = latents_and_labels(trained, [1, 2, 3], 0)
    raw = trained.generator(z, labels)
    assert bool((raw[:, :3] > raw[:, 3:] + 0.1).any())
    space = trained.space
    for drawn in (space.generate(space.map(z, labels), labels), generate_images(trained.generator, z, labels)):  # fmt: skip # noqa: E501
        assert (drawn[..., :3] <= drawn[..., 3:]).all()
        assert drawn.std() > 10


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_videos_have_the_stated_background(run: Path, tmp_path: Path, form: str) -> None:
    seen = []
    for colour in ("#ff0000", "#0000ff"):
        out = tmp_path / f"{colour[1:]}.{form}"
        words = ["tiny", "--steps", "3", "--background", colour, "--out", str(out)]
        assert walk.main(words) == 0
        seen.append(pixels_of(out, "RGB").astype(int).mean((0, 1)))
    assert seen[0][0] - seen[1][0] > 20
    assert seen[1][2] - seen[0][2] > 20


def test_a_background_that_is_no_colour_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiny", "--background", "white", "--out", str(tmp_path / "a.gif")]
    assert walk.main(words) == 2
    assert "--background white: not a colour; write it as #rrggbb" in capsys.readouterr().err


def test_nearest_and_project_take_rgba(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "near.png"
    assert nearest.main(["tiny", "--numbers", "1,2", "--k", "2", "--out", str(out)]) == 0
    assert mode_of(out) == "RGBA"
    target = np.zeros((16, 16, 4), np.uint8)
    target[:, :, :3], target[4:12, 4:12, 3] = (10, 200, 30), 255
    Image.fromarray(target).save(tmp_path / "target.png")
    for distance in ("features", "pixels"):
        words = ["tiny", str(tmp_path / "target.png"), "--steps", "2", "--distance", distance]
        assert project.main([*words, "--out", str(out)]) == 0
        pixels = pixels_of(out)
        assert pixels.shape == (16, 32, 4)
        assert np.array_equal(pixels[:, :16, 3], target[..., 3])
        assert np.abs(pixels[6, 6, :3].astype(int) - (10, 200, 30)).max() <= 1


def test_evaluations_state_the_background(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for colour in ("#ffffff", "#000000"):
        words = ["tiny", "--samples", "50", "--real", "100", "--background", colour, "--json"]
        assert evaluate.main([*words, "--ppl", "4"]) == 0
        out = capsys.readouterr().out
        assert f"16×16 px, over {colour}" in out
        (result,) = json.loads(out.splitlines()[-1])["runs"]
        assert result["background"] == colour
        found.append({name: one["value"] for name, one in result["metrics"].items()})
    assert found[0]["fd_efficientnet_lite0"] != found[1]["fd_efficientnet_lite0"]
    assert found[0]["ppl_z_efficientnet_lite0"] != found[1]["ppl_z_efficientnet_lite0"]


@pytest.mark.slow
def test_exports_have_four_channels_and_say_so(run: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "out"
    assert export.main(["tiny", "--out", str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "RGBA images" in card
    assert "the colours are multiplied by alpha" in card
    session = onnxruntime.InferenceSession(out / "generator.onnx")
    z = np.random.default_rng(0).standard_normal((4, 8)).astype("f4")
    images = session.run(None, {"z": z, "truncation_psi": np.array(1, "f4")})[0]
    assert images.shape == (4, 4, 16, 16)
    values: dict[str, Any] = {"images": images, "np": np}
    exec("values = " + card.partition("\nvalues = ")[2].partition("```")[0], values)
    assert values["straight"].shape == values["on_white"].shape == (4, 3, 16, 16)
    words = [str(out), "--numbers", "3", "--out", str(tmp_path / "a.png")]
    assert sample.main(words) == 0
    assert mode_of(tmp_path / "a.png") == "RGBA"

"""What a trained encoder serves: projections that start at its latent, and reconstructions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.contract import UserError
from shellgan.models import Model
from tests.training.latent.test_projection import made
from tests.training.methods.conftest import TinyRun
from training import project as command
from training.latent.projection import Schedule, pixel_distance, project
from training.latent.space import LatentSpace
from training.networks.encoder import Posterior
from training.pretrained.inference import load_generator
from training.reporting.figures import reconstructions

ZERO = torch.zeros(1, dtype=torch.int64)


class Oracle(nn.Module):
    """An encoder that knows the latent."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, images: Tensor) -> Posterior:
        return Posterior(self.latents[: len(images)])


def with_oracle(kind: str) -> tuple[LatentSpace, Tensor]:
    space = made(kind)
    latents = torch.randn(5, 8, generator=torch.Generator().manual_seed(5))
    return replace(space, encoder=Oracle(latents)), latents


@pytest.mark.parametrize("kind", ["dcgan", "stylegan2"])
def test_projection_starts_at_the_encoder_s_latent(kind: str) -> None:
    space, latents = with_oracle(kind)
    target = space.synthesize(space.map(latents[:1], ZERO), ZERO)
    steps = Schedule(2)
    mean = project(space, target, pixel_distance, ZERO, steps)
    found = project(space, target, pixel_distance, ZERO, steps, encoded=True)
    assert found.initial_distance < 1e-2 * mean.initial_distance
    assert found.distance <= found.initial_distance


def test_reconstructions_are_beside_their_images() -> None:
    space, latents = with_oracle("dcgan")
    labels = torch.zeros(5, dtype=torch.int64)
    images = space.synthesize(space.map(latents, labels), labels)
    sheet = reconstructions(space, images, labels)
    assert sheet.shape == (2 * 16, 8 * 16, 3)
    tiles = sheet.reshape(2, 16, 8, 16, 3).transpose(0, 2, 1, 3, 4).reshape(16, 16, 16, 3)
    assert np.array_equal(tiles[0:10:2], tiles[1:10:2])
    assert tiles[:10].std() > 0
    assert not np.array_equal(tiles[0], tiles[2])


def test_the_encoder_of_a_run_serves_project_the_report_and_the_library(
    tmp_path: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run("--method.name", "bigan", "--method.encoder.width", "4")
    assert "Reconstructions" in (run / "report.html").read_text()
    trained = load_generator(str(run), torch.device("cpu"))
    assert trained.encoder is not None
    saved = max((run / "checkpoints").glob("*.pt"))
    weights = torch.load(saved, weights_only=True)["state"]["encoder_average"]
    assert all(
        torch.equal(weights[key], value) for key, value in trained.encoder.state_dict().items()
    )

    picture = tmp_path / "shell.png"
    size = (trained.shape.width, trained.shape.height)
    Image.new("RGB", size, (200, 120, 40)).save(picture)
    out = tmp_path / "pair.png"
    arguments = ["tiny", str(picture), "--out", str(out), "--steps", "2", "--distance", "pixels"]
    capsys.readouterr()
    assert command.main([*arguments, "--encoder"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"distance [0-9.e-]+; of the encoder's image [0-9.e-]+", told)
    found = Model(trained, str(run), tmp_path).project(
        str(picture), steps=2, distance="pixels", encoder=True
    )
    space, label = trained.space, ZERO
    target = torch.tensor([200, 120, 40]).view(1, 3, 1, 1).expand(1, 3, *size[::-1]) / 127.5 - 1
    start = space.synthesize(space.encode(target, label), label)
    expected = float(pixel_distance(start, target))
    assert found.initial_distance == pytest.approx(expected, rel=1e-4)


def test_a_run_without_encoder_says_so(
    tmp_path: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run()
    assert "Reconstructions" not in (run / "report.html").read_text()
    Image.new("RGB", (16, 16)).save(tmp_path / "shell.png")
    arguments = ["tiny", str(tmp_path / "shell.png"), "--out", str(tmp_path / "pair.png")]
    capsys.readouterr()
    assert command.main([*arguments, "--encoder"]) == 2
    assert "--encoder: tiny has no encoder; train with" in capsys.readouterr().err
    model = Model(load_generator(str(run), torch.device("cpu")), str(run), tmp_path)
    with pytest.raises(UserError, match=r"^encoder: the run has none"):
        model.project(str(tmp_path / "shell.png"), steps=1, encoder=True)

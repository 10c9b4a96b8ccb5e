"""StyleGAN2's weights with the names of other projects draw the same images there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers import fake_nvlabs, rosinality_generator, untrained_runs
from training import export
from training.latent.image_numbers import latents_of
from training.options.architectures import StyleGan2Generator
from training.pretrained.inference import load_generator

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[3] / "docs"
WIDE = StyleGan2Generator(z_dim=16, w_dim=16, mapping_layers=3, mapping_lr_multiplier=0.02)
SMALL = dataclasses.replace(WIDE, channel_base=128, channel_max=12)


def make_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: Any, channels: int = 3
) -> Path:
    monkeypatch.setitem(untrained_runs.TABLES, "stylegan2", options)
    return untrained_runs.make_run(folder, "stylegan2", "", channels)


def images(run: Path, psi: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    trained = load_generator(str(run), CPU)
    z = latents_of([1, 2, 3], trained.latent, trained.generator.z_dim)
    labels = torch.zeros(3, dtype=torch.int64)
    drawn = trained.space.synthesize(
        trained.space.truncate(trained.space.map(z, labels), psi), labels
    )
    assert drawn.std() > 0.05
    return z, drawn


def test_rosinalitys_generator_draws_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(tmp_path / "run", monkeypatch, WIDE), tmp_path / "out"
    assert export.main([str(run), "--format", "rosinality", "--out", str(out)]) == 0
    saved = torch.load(out / "rosinality.pt", weights_only=True)
    generator = rosinality_generator.Generator(16, 16, 3)
    generator.load_state_dict(saved["g_ema"])
    z, wanted = images(run)
    with torch.no_grad():
        found = generator(z, 0.7, saved["latent_avg"])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert "model.Generator(16, 16, 3, channel_multiplier=2)" in (out / "README.md").read_text()


@pytest.mark.parametrize("condition", ["none", "embedding"])
def test_nvlabs_names_come_back_through_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: Any
) -> None:
    options = dataclasses.replace(SMALL, condition=condition)
    run, out = make_run(tmp_path / "run", monkeypatch, options), tmp_path / "out"
    assert export.main([str(run), "--format", "nvlabs", "--out", str(out)]) == 0
    weights = load_file(out / "nvlabs.safetensors")
    fake_nvlabs.write_pickle(tmp_path / "net.pkl", {"G_ema": weights}, 4)
    _, wanted = images(run)
    assert torch.equal(images(tmp_path / "net.pkl")[1], wanted)
    with safe_open(out / "nvlabs.safetensors", "pt") as file:
        arguments = json.loads(file.metadata()["arguments"])
    assert (arguments["img_resolution"], arguments["img_channels"]) == (16, 3)
    assert arguments["c_dim"] == (2 if condition == "embedding" else 0)
    assert arguments["mapping_kwargs"] == {"num_layers": 3, "lr_multiplier": 0.02}


def test_the_table_of_names_is_that_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(tmp_path / "run", monkeypatch, WIDE), tmp_path / "out"
    assert export.main([str(run), "--format", "nvlabs,rosinality", "--out", str(out)]) == 0
    theirs = load_file(out / "nvlabs.safetensors")
    others = torch.load(out / "rosinality.pt", weights_only=True)
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \|", (DOCS / "sharing.md").read_text(), re.M)
    seen: set[str] = set()
    for nvlabs, rosinality in rows:
        for n, size in enumerate((8, 16)):
            name = nvlabs.replace("bR", f"b{size}")
            other = rosinality.replace("2n+1", str(2 * n + 1)).replace("2n+2", str(2 * n + 2))
            other = re.sub(r"\b2n\b", str(2 * n), other)
            other = re.sub(r"(?<=[._])n\b", str(n), other)
            for layer in range(3):
                one, two = name.replace("fcK", f"fc{layer}"), other.replace("K+1", str(layer + 1))
                found = others if two == "latent_avg" else others["g_ema"]
                assert theirs[one].numel() == found[two].numel(), (one, two)
                ratio = (found[two].flatten() / theirs[one].flatten()).nanmedian()
                assert ratio in (1, 2, 4) or theirs[one].abs().sum() == 0, (one, two)
                seen |= {one, two}
    assert seen <= {*theirs, *others["g_ema"], "latent_avg"}
    unused = {*theirs, *others["g_ema"]} - seen
    filters = {f"b{size}.conv1" for size in (4, 8, 16)} | {"b4"}
    assert unused == {f"synthesis.{name}.resample_filter" for name in filters}


@pytest.mark.parametrize(
    ("layout", "changes", "channels", "reason"),
    [
        ("rosinality", {"channel_max": 12}, 3, "gives widths other than 512"),
        ("rosinality", {}, 1, "images have 1 channels, not 3"),
        ("rosinality", {"w_dim": 12}, 3, "z has 16 dimensions and w 12"),
        ("rosinality", {"condition": "embedding"}, 3, "the generator has labels"),
        ("rosinality", {"architecture": "resnet"}, 3, "generator.architecture is resnet"),
        ("rosinality", {"conv_clamp": 0.01}, 3, "limited by generator.conv_clamp"),
        ("nvlabs", {"resample": "economical"}, 3, "generator.resample is economical"),
        ("nvlabs", {"style": "adain"}, 3, "generator.style is adain"),
    ],
)
def test_other_generators_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    layout: str, changes: dict[str, Any], channels: int, reason: str,
) -> None:  # fmt: skip
    options = dataclasses.replace(WIDE if changes.keys() & {"conv_clamp"} else SMALL, **changes)
    run = make_run(tmp_path / "run", monkeypatch, options, channels)
    assert export.main([str(run), "--format", layout, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert f"--format {layout}: " in err
    assert reason in err
    assert err.count("\n") == 1


def test_another_kind_of_generator_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained_runs.make_run(tmp_path / "run", "dcgan")
    assert export.main([str(run), "--format", "nvlabs", "--out", str(tmp_path / "out")]) == 2
    assert "the generator is dcgan, not stylegan2" in capsys.readouterr().err

"""A generator in forms for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from training import export, sample
from training.exports import onnx_file
from training.exports.folder import write_card
from training.latent.cli import latents_and_labels
from training.pretrained.inference import load_generator


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labelled", "spectral", "stylegan2", "stylegan3"])
def test_onnx_is_the_generator(kind: str, run_of: Callable[..., Path], tmp_path: Path) -> None:
    run, out = run_of(kind), tmp_path / "out"
    assert export.main([str(run), "--format", "onnx", "--out", str(out)]) == 0
    trained = load_generator(str(run), torch.device("cpu"))
    session = onnxruntime.InferenceSession(out / "generator.onnx")
    names = {entry.name for entry in session.get_inputs()}
    assert names == {"z", "truncation_psi"} | ({"labels"} if trained.conditional else set())
    for layer in trained.generator.modules():
        if hasattr(layer, "at_test"):
            layer.at_test = False  # a graph has no dropout when sampling
    for count, psi in ((1, 1.0), (5, 0.5)):
        latents, labels = latents_and_labels(trained, list(range(count)), 1)
        space = trained.space
        ws = space.truncate(space.map(latents, labels), psi)
        wanted = space.synthesize(ws, labels).numpy()
        assert wanted.std() > 0.03
        feed = {
            "z": latents.numpy(),
            "truncation_psi": np.array(psi, "f4"),
            "labels": labels.numpy(),
        }
        found = session.run(None, {name: feed[name] for name in names})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(onnx_file, "export", broken(onnx_file.export))
    out = tmp_path / "out"
    assert export.main([str(run_of("dcgan")), "--format", "onnx", "--out", str(out)]) == 2
    assert "differs from PyTorch by" in capsys.readouterr().err
    assert not (out / "generator.onnx").exists()


def broken(whole: Any) -> Any:
    """The exporter, one number of the largest weight doubled."""

    def damaged(graph: Any) -> bytes:
        import onnx
        from onnx import numpy_helper

        model = onnx.load_from_string(whole(graph))
        tensors = model.graph.initializer
        largest = max(tensors, key=lambda tensor: np.prod(tensor.dims))
        values = numpy_helper.to_array(largest).copy()
        values.flat[0] += 1
        largest.CopyFrom(numpy_helper.from_array(values, largest.name))
        return bytes(model.SerializeToString())

    return damaged


@pytest.mark.parametrize("kind", ["labelled", "stylegan2"])
def test_the_folder_takes_the_runs_place(
    kind: str, run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = run_of(kind), tmp_path / "given" / "shells"
    assert export.main([str(run), "--format", "safetensors", "--out", str(out)]) == 0
    pictures = []
    for place in (run, out):
        picture = tmp_path / f"{len(pictures)}.png"
        assert sample.main([str(place), "--numbers", "1-9", "--out", str(picture)]) == 0
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1]
    assert not list(out.glob("*.pt"))
    assert sample.main([f"{out}@newest", "--out", str(tmp_path / "x.png")]) == 0
    for which in ("best", "999"):
        assert sample.main([f"{out}@{which}", "--out", str(tmp_path / "x.png")]) == 2
        said = f"shells@{which}: an exported folder has no checkpoints; leave out @{which}\n"
        assert capsys.readouterr().err.endswith(said)
    (out / "model.safetensors").write_bytes(b"torn")
    assert sample.main([str(out), "--out", str(tmp_path / "x.png")]) == 2


def test_the_card_carries_the_licences_on(
    run_of: Callable[..., Path], small_shards: Callable[..., Any], tmp_path: Path
) -> None:
    manifest = small_shards(size=16).manifest
    (manifest / "README.md").write_text(
        "# Shells\n\n![samples](contact.jpg)\n\n| Source | folder: /home/ann/secret |\n\n"
        "## Licences\n\n| licence | images |\n| --- | --- |\n| CC-BY-4.0 | 99 |\n"
        "| by \\| hand | 1 |\n"
    )
    run = run_of("labelled", str(manifest))
    (run / "metrics.jsonl").write_text(
        '{"seen": 100, "fd": 80.5, "loss_d": 1.0}\n{"seen": 12000, "loss_d": 0.25}\n'
    )
    out = tmp_path / "out"
    assert export.main([str(run), "--format", "safetensors", "--out", str(out)]) == 0
    card = (out / "README.md").read_text()
    for line in (
        "# labelled", "of 16 × 16 px colour images", "#### Licences", "| CC-BY-4.0 | 99 |",
        "| by \\| hand | 1 |", "| Images seen | 12,000 |", "| Labels | cone, whelk |",
        "| fd | 80.5 |", "| loss_d | 0.25 |", "| `generator.z_dim` | `9` |",
        "`shells`: 100 images, digest `" + "0" * 64 + "`", "| `model.safetensors` | the weights |",
        "python -m training.explore ./out",
    ):  # fmt: skip
        assert line in card
    for said in ("contact.jpg", "secret", str(tmp_path)):
        assert said not in card
    described = json.loads((out / "config.json").read_text())
    assert described["dataset"]["location"] == ""
    assert described["seen"] == 12_000
    described = json.loads((run / "config.json").read_text())
    described["dataset"]["clusters"] = "AAAA"  # the digest is not that of the samples alone
    (run / "config.json").write_text(json.dumps(described))
    assert export.main([str(run), "--format", "safetensors", "--out", str(tmp_path / "more")]) == 0
    assert "0` (of samples and clusters). Its card" in (tmp_path / "more/README.md").read_text()


@pytest.mark.parametrize("latent", ["gaussian", "sphere", "uniform"])
def test_the_code_of_the_card_draws_the_latents_of_the_run(
    latent: str, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    trained = load_generator(str(run_of("labelled")), torch.device("cpu"))
    write_card(replace(trained, latent=latent), tmp_path, {"generator.onnx": "a model"}, [])
    lines = (tmp_path / "README.md").read_text().splitlines()
    found: dict[str, Any] = {"np": np}
    exec("\n".join(line for line in lines if line.startswith("z ")), found)
    z = found["z"]
    assert (z.shape, z.dtype) == ((4, 9), np.float32)
    assert (abs(z).max() <= 1) == (latent == "uniform")
    on_sphere = np.allclose(np.linalg.norm(z, axis=1), 3, atol=1e-5)
    assert on_sphere == (latent == "sphere")


def test_mistakes_are_one_line(
    run_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(run_of("dcgan")), str(tmp_path / "out")
    for arguments, said in (
        ([run, "--format", "tflite", "--out", out], "--format tflite: unknown format"),
        ([run, "--out", run], "contains a run"),
        ([run, "--out", out, "--tolerance", "0"], "--tolerance 0: must be a number"),
        ([run, "--out", out, "--tolerance", "nan"], "--tolerance nan: must be a number"),
        (["nowhere", "--out", f"{run}/config.json"], "config.json/README.md: cannot be written"),
        (["nowhere", "--out", out], "no run there"),
        ([run, "--format", "onnx", "--static"], "--format onnx: --static exports only the page"),
        ([run, "--title", "Shells", "--out", out], "--title: only for --format page"),
        ([run, "--runtime", "a.tgz", "--out", out], "--runtime: only for --format page"),
        (
            [run, "--format", "safetensors", "--tolerance", "1", "--out", out],
            "--tolerance: only for --format onnx or page",
        ),
    ):
        assert export.main(arguments) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1

"""Uploads of a generator to a stand-in for the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.helpers.hub_server import TOKEN, HubServer
from training import export
from training.exports import writing
from training.exports.hub import SAMPLES, card_licenses, card_overrides

# the package's own call of its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CARD = """# Shells

## Opt-out signals

| signal | images and pages | outcome | reason |
| --- | --- | --- | --- |
| robots.txt | 7 | refused |  |
| tdmrep | 2 | kept, overridden | by letter |

## Licences

| licence | images |
| --- | --- |
| CC-BY-4.0 | 1,099 |
| by \\| hand | 1 |
| not stated | 3 |

and 2 more (5 images)

## Originals

| short side, pixels | images |
| --- | --- |
| 64 to 127 | 9 |
"""


@pytest.fixture
def run(run_of: Callable[..., Path], small_shards: Callable[..., Any]) -> Path:
    manifest = small_shards(size=16).manifest
    (manifest / "README.md").write_text(CARD)
    run = run_of("labelled", str(manifest))
    rows = [{"seen": 100, "fd": 80.5, "loss_d": 1.0}, {"seen": 12_000, "loss_d": 0.5, "kid": 0.25}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_model_has_card_samples_and_metadata_on_the_hub(
    hub: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "private.txt").write_text("not of the export")
    words = [str(run), "--format", "safetensors", "--out", str(out), "--hub", "ann/shells"]
    assert export.main(words) == 0
    repo = hub.repos["model", "ann/shells"]
    assert repo.private
    assert set(repo.files) == {"README.md", "config.json", "model.safetensors", "samples.png"}
    card = ModelCard(repo.files["README.md"].decode())
    assert (card.data.license, card.data.license_name) == ("other", "mixed")
    assert card.data.license_details == (
        "CC-BY-4.0 (1,099 images); other licences (5 images); not stated (3 images); "
        "by | hand (1 image)"
    )
    assert {"gan", "dcgan"} <= set(card.data.tags)
    results = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert results == {"fd": 80.5, "kid": 0.25}
    assert "![samples](samples.png)" in card.text
    said = capsys.readouterr()
    assert "warning: shells: 3 of 1,108 images state no licence" in said.out
    assert "warning: shells: 2 images kept despite an opt-out signal" in said.out
    assert "  model.safetensors  " in said.out
    assert TOKEN not in said.out + said.err + repo.files["README.md"].decode()
    puts = len(hub.puts)
    assert export.main(words) == 0
    assert len(hub.puts) == puts


def test_nothing_is_sent_without_the_option(hub: HubServer, run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert export.main([str(run), "--format", "safetensors", "--out", out]) == 0
    assert hub.asked == []


def test_a_dataset_on_the_hub_is_linked(
    hub: HubServer, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of("dcgan", "hf://datasets/ann/shells@main/data/train-{00000..00001}.tar")
    words = ["--format", "safetensors", "--out", str(tmp_path / "o"), "--hub", "ann/x", "--public"]
    assert export.main([str(run), *words]) == 0
    repo = hub.repos["model", "ann/x"]
    head = yaml.safe_load(repo.files["README.md"].decode().split("---\n")[1])
    assert (head["datasets"], head["license"]) == (["ann/shells"], "unknown")
    assert "model-index" not in head
    assert not repo.private


@pytest.mark.slow
def test_the_explorer_is_a_static_space(
    hub: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = {"ort.js": b"//", "ort.wasm": b"\0asm"}
    monkeypatch.setattr(writing, "runtime_files", lambda _: runtime)
    out = tmp_path / "out"
    words = ["--out", str(out), "--hub", "ann/page", "--space", "--title", "Shells: all new"]
    assert export.main([str(run), *words]) == 0
    repo = hub.repos["space", "ann/page"]
    assert repo.sdk == "static"
    assert set(repo.files) == {str(path.relative_to(out)) for path in out.rglob("*")}
    assert {"index.html", "generator.json", "synthesis.onnx", "ort.wasm"} <= set(repo.files)
    card = repo.files["README.md"].decode()
    assert {name for name in repo.files if f"| `{name}` | " not in card} == {"README.md", SAMPLES}
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["sdk"], head["app_file"], head["title"]) == (
        "static", "index.html", "Shells: all new"
    )  # fmt: skip


def test_mistakes_are_one_line(
    hub: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("HF_TOKEN")
    for words, said in (
        (["--space"], "--space: only with --hub USER/NAME"),
        (["--public"], "--public: only with --hub USER/NAME"),
        (["--hub", "shells"], "--hub shells: expected USER/NAME"),
        (["--hub", "ann/x"], "--hub ann/x: no token; set HF_TOKEN or run `hf auth login`"),
    ):
        assert export.main([str(run), "--out", str(tmp_path / "out"), *words]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert hub.asked == []


def test_the_counts_of_a_card() -> None:
    assert card_licenses(CARD) == {"CC-BY-4.0": 1099, "by | hand": 1, "": 3, "other licences": 5}
    assert card_overrides(CARD) == 2
    assert (card_licenses(""), card_overrides("")) == ({}, 0)

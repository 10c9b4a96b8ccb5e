"""A dataset and a run that version 0.1 wrote stay usable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.__main__ import main as pipeline
from training.fit import main as fit
from training.sample import main as sample

FILES = Path(__file__).parent / "data" / "version-0.1"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FILES, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def shard_bytes(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("data/garments/shards/*.tar")}


@pytest.mark.slow
def test_the_dataset_is_read_and_its_shards_are_reused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shard_bytes(root)
    assert pipeline(["status", "garments.toml", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["urls"], status["images"], status["kept"], status["samples"]) == (8, 8, 8, 8)
    assert pipeline(["select", "garments.toml", "--quiet"]) == 0
    assert pipeline(["shard", "garments.toml", "--quiet", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["shard"]
    assert (made["samples"], made["reused"], made["made"]) == (8, 2, 0)
    assert pipeline(["verify", "garments.toml", "--quiet"]) == 0
    assert shard_bytes(root) == before


@pytest.mark.slow
def test_damaged_shards_are_made_again_with_the_same_bytes(root: Path) -> None:
    before = shard_bytes(root)
    (root / "data/garments/shards/garments-000000.tar").write_bytes(b"damaged")
    assert pipeline(["verify", "garments.toml", "--quiet", "--repair"]) == 0
    assert shard_bytes(root) == before


@pytest.mark.slow
def test_the_run_draws_and_resumes(root: Path) -> None:
    assert sample(["runs/tiny", "--n", "4", "--out", "four.png", "--device", "cpu"]) == 0
    assert (root / "four.png").stat().st_size > 0
    words = (
        "--shards manifests/garments --preset shells64 --run runs/tiny --resolution 16 --batch 4"
    )
    words += " --generator.width 4 --discriminator.width 4 --record.grid 4 --evaluate.kimg 0"
    words += " --device cpu --threads 1 --record.log_kimg 0.004 --total-kimg 0.024"
    assert fit(words.split()) == 0
    lines = (root / "runs/tiny/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seen"] for line in lines] == [4, 8, 12, 16, 20, 24]

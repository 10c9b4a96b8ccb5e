"""Real galleries, by recipe alone, all the way into the trainer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.contract import load_index
from tests.helpers.static_site import served

SITES = Path(__file__).parent / "sites"
GALLERIES = Path(__file__).parents[1] / "data" / "galleries"


@pytest.mark.parametrize("name", ["lazygal", "llgal", "sigal"])
def test_scrape_and_train(name: str, tmp_path: Path) -> None:
    recipe = SITES / f"{name}.toml"
    assert len(recipe.read_text().splitlines()) < 25
    with served(GALLERIES / name) as url:
        settings = {
            "source.start": json.dumps([f"{url}/index.html"]),
            "shards.resolution": "32",
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        scraped = subprocess.run(
            [sys.executable, "-m", "pipeline", "run", str(recipe), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert scraped.returncode == 0, scraped.stderr
    index, _ = load_index(tmp_path / "manifests" / name)
    assert index.nsamples > 0
    trained = subprocess.run(
        [
            *(sys.executable, "-m", "training.fit", "--shards", f"manifests/{name}"),
            *("--preset", "shells64", "--run", "run", "--batch", "4", "--total-kimg", "0.008"),
            *(
                "--resolution",
                "32",
                "--generator.width",
                "4",
                "--discriminator.width",
                "4",
                "--record.log_kimg",
                "0.004",
            ),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "run" / "report.html").exists()
    rows = (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["seen"] == 8

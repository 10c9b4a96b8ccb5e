"""Real galleries, by recipe alone, all the way into the trainer."""

import json
from pathlib import Path

import pytest

from pipeline.contract import load_index
from tests.helpers.commands import run_here, run_pipeline
from tests.helpers.static_site import served
from training.fit import main as fit

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
        scraped = run_pipeline(tmp_path, "run", str(recipe), *words)
    assert scraped.returncode == 0, scraped.stderr
    index, _ = load_index(tmp_path / "manifests" / name)
    assert index.nsamples > 0
    trained = run_here(
        fit, tmp_path, "--shards", f"manifests/{name}", "--preset", "shells64", "--run", "run",
        "--batch", "4", "--total-kimg", "0.008", "--resolution", "32", "--generator.width", "4",
        "--discriminator.width", "4", "--record.log_kimg", "0.004", "--threads", "1",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "run" / "report.html").exists()
    rows = (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["seen"] == 8

"""Without `--out`, a command names its output after the run and overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import training.export
import training.sample
from pipeline.contract import UserError
from tests.helpers.commands import run_here
from tests.helpers.untrained_runs import make_run
from training.evaluate import parse
from training.latent.cli import default_out


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "mine", "dcgan")
    for name in ("mine-sample.png", "mine-sample-2.png"):
        said = run_here(training.sample.main, tmp_path, "mine", "--n", "1")
        assert (said.returncode, said.stdout) == (0, f"{name}\n")
    for name in ("mine-export", "mine-export-2"):
        said = run_here(training.export.main, tmp_path, "mine", "--format", "safetensors")
        assert said.returncode == 0, said.stderr
        assert f"{name}/README.md" in said.stdout


@pytest.mark.parametrize(
    ("run", "end", "name"),
    [
        ("a.b@best", "sample.png", "a.b@best-sample.png"),
        ("runs/a/", "walk.gif", "a-walk.gif"),
        ("a", "page", "a-page"),
        (".", "sample.png", "inner-sample.png"),
        ("..", "page", "outer-page"),
        (".@best", "sample.png", "inner@best-sample.png"),
    ],
)
def test_it_is_named_after_the_run(
    run: str, end: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "inner")
    assert default_out(run, end) == Path(name)


def test_a_chart_has_a_default_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(["mine"]).out is None
    assert parse(["mine", "--out"]).out == Path("mine-evaluate.svg")
    with pytest.raises(UserError, match=r"must be \.svg"):
        parse(["mine", "--out", "chart.png"])

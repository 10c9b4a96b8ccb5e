"""Evaluations while training: they change nothing, are repeated exactly, and keep the best."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError
from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here, read_run
from training import best_checkpoint, checkpoint
from training.evaluate import main as evaluate
from training.evaluation import comparison
from training.pretrained.inference import load_generator
from training.runs import parse_run_spec
from training.sample import main as sample

METRIC = "fd_efficientnet_lite0"
JUDGED = (
    "--eval-kimg", "0.192", "--eval-samples", "50", "--evaluate.real", "100", "--record.keep", "20",
)  # fmt: skip
# 0.192 is a multiple of the log's 0.016: an evaluation adds to a row that is there anyway


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """A set with labels, an uninterrupted evaluated run, and what it said."""
    folder = tmp_path_factory.mktemp("judged")
    shards, said = SmallShards(folder / "set", labels=("a", "b")), io.StringIO()
    (folder / "work").mkdir()
    with contextlib.chdir(folder / "work"), contextlib.redirect_stdout(said):
        assert fit_here("judged", shards, *JUDGED) == 0
    return shards, folder / "work" / "runs" / "judged", said.getvalue()


def facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if METRIC in row]


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.endswith("_efficientnet_lite0")}
        for row in rows
    ]


def test_rows_and_console_tell_what_was_measured(judged: Any) -> None:
    _, run, said = judged
    rows, _ = read_run(run)
    assert [row["seen"] for row in facts(rows)] == [192, 384]
    for row in facts(rows):
        assert row[METRIC] > 0
        assert {"kid_efficientnet_lite0", "recall_efficientnet_lite0"} <= row.keys()
    assert "50 samples against 100 real images; 50 real images against the others: fd_" in said
    assert "evaluation at 0.192 kimg: fd_efficientnet_lite0" in said
    assert f"FD {facts(rows)[-1][METRIC]:.4g}" in said


def test_evaluations_change_nothing_else(judged: Any, in_process: Any) -> None:
    shards, run, _ = judged
    plain = run.parent / "plain"
    assert in_process(plain, shards, "--eval-kimg", "0") == 0
    rows, weights = read_run(plain)
    judged_rows, judged_weights = read_run(run)
    assert bare(judged_rows) == rows
    assert all(torch.equal(weights[name], judged_weights[name]) for name in weights)
    assert best_checkpoint.best(plain / "checkpoints") is None


def killed_before(judged: Path, name: str, seen: int) -> Path:
    """A copy of the run as if it had been killed before the checkpoint at `seen` and the best."""
    run = judged.parent / name
    shutil.copytree(judged, run)
    for saved in checkpoint.list_checkpoints(run / "checkpoints"):
        if saved.seen >= seen:
            checkpoint.remove(saved)
    shutil.rmtree(run / "checkpoints" / "best")
    return run


def test_a_lost_evaluation_is_repeated_exactly(judged: Any, in_process: Any) -> None:
    shards, run, _ = judged
    lost = killed_before(run, "lost", 192)
    assert in_process(lost, shards, *JUDGED) == 0
    rows, weights = read_run(lost)
    other_rows, other_weights = read_run(run)
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    kept, other = (best_checkpoint.best(one / "checkpoints") for one in (lost, run))
    assert kept is not None
    assert other is not None
    assert (kept.saved.seen, kept.value) == (other.saved.seen, other.value)


def test_a_kill_between_saving_and_keeping_the_best_is_mended(
    judged: Any, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, run, _ = judged
    between = killed_before(run, "between", 193)
    kept: list[int] = []
    keep = best_checkpoint.keep_best

    def noted(folder: Path, seen: int, measure: str, value: float) -> bool:
        kept.append(seen)
        return keep(folder, seen, measure, value)

    monkeypatch.setattr(best_checkpoint, "keep_best", noted)
    assert in_process(between, shards, *JUDGED) == 0
    assert kept[0] == 192
    best, other = (best_checkpoint.best(one / "checkpoints") for one in (between, run))
    assert best is not None
    assert other is not None
    assert best.value == other.value


def test_the_best_is_kept_and_can_be_chosen(
    judged: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, run, _ = judged
    monkeypatch.chdir(run.parents[1])
    rows, _ = read_run(run)
    kept = best_checkpoint.best(run / "checkpoints")
    assert kept is not None
    assert kept.value == min(row[METRIC] for row in facts(rows))
    assert kept.criterion == f"{METRIC} of 50 samples against 100"
    newest, best = (load_generator(name, torch.device("cpu")) for name in ("judged", "judged@best"))
    assert (newest.seen, best.seen) == (400, kept.saved.seen)
    assert sample(["judged@best", "--n", "4", "--out", str(tmp_path / "best.png")]) == 0
    with pytest.raises(UserError, match=r"no checkpoint '0\.1'; there are newest, best, 0\.4"):
        load_generator("judged@0.1", torch.device("cpu"))


def test_the_command_measures_the_same_again(
    judged: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run, _ = judged
    monkeypatch.chdir(run.parents[1])
    options = ("--samples", "50", "--real", "100", "--device", "cpu", "--json", "--ppl", "4")
    assert evaluate(["judged@best", *options, "--out", "runs/judged/chart.svg"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])["runs"][0]
    kept = best_checkpoint.best(run / "checkpoints")
    assert kept is not None
    found = told["metrics"][METRIC]
    assert found["value"] == pytest.approx(kept.value, rel=1e-6)
    assert found["sd"] > 0
    assert found["baseline_n"] == 50
    assert found["baseline"] < found["value"]  # it has learned nothing in 400 images
    assert told["metrics"]["ppl_z_efficientnet_lite0"]["value"] > 0
    assert told["metrics"]["ppl_z_efficientnet_lite0"]["baseline"] is None
    assert json.loads((run / "evaluation.json").read_text()) == told
    assert "50 samples against 100 images of small at 16×16 px" in out
    chart = (run / "chart.svg").read_text()
    assert "during training" in chart
    assert METRIC in chart


@pytest.fixture
def in_runs(judged: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(judged[1].parents[1])
    return


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none"], "runs/none/config.json: no run there"),
        (["judged", "--samples", "10"], "--samples 10: must be an integer from 50"),
        (["judged", "--out", "a.png"], "extension must be .svg"),
        (["none", "--out", "/proc/a.svg"], "--out /proc/a.svg: cannot be written"),
        (["none", "--seed", str(2**70)], f"--seed {2**70}: must be an integer"),
        (["judged", "--inception", "none.pth"], "none.pth: No such file"),
        (["judged", "--shards", "nowhere"], "no shard index there"),
        (["judged@best-of-all"], "no checkpoint 'best-of-all'"),
        (
            ["judged", "--equivariance", "8"],
            "judged: its generator has no input that can be shifted",
        ),
    ],
)
@pytest.mark.usefixtures("in_runs")
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([*arguments, "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("sizes", "line"),
    [((40, 70), "has fewer labels than the run run"), ((40, 30), "only 70 real images")],
)
def test_shards_that_do_not_fit_are_refused_before_any_work(
    sizes: tuple[int, ...], line: str, in_process: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    labelled = SmallShards(tmp_path / "labelled", labels=("a", "b"))
    assert in_process(tmp_path / "runs" / "run", labelled, "--total-kimg", "0.016") == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(comparison, "load_feature_network")
    shards = SmallShards(tmp_path / "bare", sizes)
    assert evaluate(["run", "--shards", str(shards.manifest), "--device", "cpu"]) == 2
    assert line in capsys.readouterr().err


def test_too_few_images_are_told(
    small_shards: Any, in_process: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_shards(sizes=(40, 30))
    options = (*JUDGED, "--total-kimg", "0.2")
    assert in_process(tmp_path / "runs" / "few", shards, *options) == 0
    assert "too few images for evaluations during training: 70" in capsys.readouterr().out


def test_names_choose_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "odd@best").mkdir(parents=True)
    assert parse_run_spec("shells@best") == ("shells", "best")
    assert parse_run_spec("shells") == ("shells", "newest")
    assert parse_run_spec("odd@best") == ("odd@best", "newest")
    assert parse_run_spec(f"a@b{os.sep}run") == (f"a@b{os.sep}run", "newest")

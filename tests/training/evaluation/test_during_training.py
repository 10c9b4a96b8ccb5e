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
from training.snapshot import pack

METRIC = "fd_efficientnet_lite0"
EVALUATED = (
    "--eval-kimg", "0.192", "--eval-samples", "50", "--evaluate.real", "100", "--record.keep", "20",
)  # fmt: skip
# 0.192 is a multiple of the log's 0.016: an evaluation adds to a row that is there anyway


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """A set with labels, an uninterrupted evaluated run, and what it said."""
    folder = tmp_path_factory.mktemp("evaluated")
    shards, said = SmallShards(folder / "set", labels=("a", "b")), io.StringIO()
    (folder / "work").mkdir()
    with contextlib.chdir(folder / "work"), contextlib.redirect_stdout(said):
        assert fit_here("evaluated", shards, *EVALUATED) == 0
    return shards, folder / "work" / "runs" / "evaluated", said.getvalue()


def with_metrics(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if METRIC in row]


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.endswith("_efficientnet_lite0")}
        for row in rows
    ]


def test_rows_and_console_show_what_was_measured(evaluated: Any) -> None:
    _, run, said = evaluated
    rows, _ = read_run(run)
    assert [row["seen"] for row in with_metrics(rows)] == [192, 384]
    for row in with_metrics(rows):
        assert row[METRIC] > 0
        assert {"kid_efficientnet_lite0", "recall_efficientnet_lite0"} <= row.keys()
    assert "50 samples against 100 real images; 50 real images against the others: fd_" in said
    assert "evaluation at 0.192 kimg: fd_efficientnet_lite0" in said
    assert f"FD {with_metrics(rows)[-1][METRIC]:.4g}" in said


def test_evaluations_change_nothing_else(evaluated: Any, in_process: Any) -> None:
    shards, run, _ = evaluated
    plain = run.parent / "plain"
    assert in_process(plain, shards, "--eval-kimg", "0") == 0
    rows, weights = read_run(plain)
    evaluated_rows, evaluated_weights = read_run(run)
    assert bare(evaluated_rows) == rows
    assert all(torch.equal(weights[name], evaluated_weights[name]) for name in weights)
    assert best_checkpoint.best(plain / "checkpoints") is None


def killed_before(evaluated: Path, name: str, seen: int) -> Path:
    """A copy of the run as if it had been killed before the checkpoint at `seen` and the best."""
    run = evaluated.parent / name
    shutil.copytree(evaluated, run)
    for saved in checkpoint.list_checkpoints(run / "checkpoints"):
        if saved.seen >= seen:
            checkpoint.remove(saved)
    shutil.rmtree(run / "checkpoints" / "best")
    return run


def test_a_lost_evaluation_is_repeated_exactly(evaluated: Any, in_process: Any) -> None:
    shards, run, _ = evaluated
    lost = killed_before(run, "lost", 192)
    assert in_process(lost, shards, *EVALUATED) == 0
    rows, weights = read_run(lost)
    other_rows, other_weights = read_run(run)
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    kept, other = (best_checkpoint.best(one / "checkpoints") for one in (lost, run))
    assert kept is not None
    assert other is not None
    assert (kept.saved.seen, kept.value) == (other.saved.seen, other.value)


def test_a_kill_between_saving_and_keeping_the_best_is_mended(
    evaluated: Any, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, run, _ = evaluated
    between = killed_before(run, "between", 193)
    kept: list[int] = []
    keep = best_checkpoint.keep_best

    def noted(folder: Path, seen: int, criterion: str, value: float) -> bool:
        kept.append(seen)
        return keep(folder, seen, criterion, value)

    monkeypatch.setattr(best_checkpoint, "keep_best", noted)
    assert in_process(between, shards, *EVALUATED) == 0
    assert kept[0] == 192
    best, other = (best_checkpoint.best(one / "checkpoints") for one in (between, run))
    assert best is not None
    assert other is not None
    assert best.value == other.value


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(("--eval-kimg", "0"), id="no evaluations"),
        pytest.param(("--total-kimg", "0.208"), id="none is due"),
        pytest.param(("--eval-samples", "60"), id="another criterion"),
    ],
)
def test_a_better_checkpoint_is_not_replaced_by_the_evaluation_before_a_resume(
    other: tuple[str, ...], evaluated: Any, in_process: Any, tmp_path: Path
) -> None:
    shards, source, _ = evaluated
    run = tmp_path / "runs" / "resumed"
    shutil.copytree(source, run)
    folder = run / "checkpoints"
    for saved in checkpoint.list_checkpoints(folder):
        if saved.seen > 192:
            checkpoint.remove(saved)
    best = best_checkpoint.best(folder)
    assert best is not None
    record = best.saved.metadata_path
    record.write_text(json.dumps(json.loads(record.read_text()) | {"value": 0.5}))
    assert in_process(run, shards, *EVALUATED, *other) == 0
    kept = best_checkpoint.best(folder)
    assert kept is not None
    if "60" in other:  # the next evaluation starts a new best
        assert (kept.saved.seen, kept.criterion) == (384, f"{METRIC} of 60 samples against 100")
    else:
        assert (kept.saved.seen, kept.value) == (best.saved.seen, 0.5)


def test_an_evaluation_that_was_left_out_is_due_at_the_end_of_a_resumed_run(
    evaluated: Any, in_process: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row of 384 images has no metrics: the time did not suffice for them."""
    shards, source, _ = evaluated
    run = killed_before(source, "owed", 401)
    folder = run / "checkpoints"
    saved = checkpoint.list_checkpoints(folder)[0]
    values = checkpoint.load(saved)
    rows = [json.loads(line) for line in values["history"].splitlines()]
    without = [row if row["seen"] < 384 else bare([row])[0] for row in rows]
    values["history"] = "".join(json.dumps(row) + "\n" for row in without)
    checkpoint.save(folder, saved.seen, pack(values), 20)
    assert in_process(run, shards, *EVALUATED, "--total-kimg", "0.416") == 0
    assert [row["seen"] for row in with_metrics(read_run(run)[0])] == [192, 416]
    assert "evaluation at 0.416 kimg" in capsys.readouterr().out


def test_the_best_is_kept_and_can_be_chosen(
    evaluated: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, run, _ = evaluated
    monkeypatch.chdir(run.parents[1])
    rows, _ = read_run(run)
    kept = best_checkpoint.best(run / "checkpoints")
    assert kept is not None
    assert kept.value == min(row[METRIC] for row in with_metrics(rows))
    assert kept.criterion == f"{METRIC} of 50 samples against 100"
    newest, best = (
        load_generator(name, torch.device("cpu")) for name in ("evaluated", "evaluated@best")
    )
    assert (newest.seen, best.seen) == (400, kept.saved.seen)
    assert sample(["evaluated@best", "--n", "4", "--out", str(tmp_path / "best.png")]) == 0
    with pytest.raises(UserError, match=r"no checkpoint '0\.1'; there are newest, best, 0\.4"):
        load_generator("evaluated@0.1", torch.device("cpu"))


def test_the_command_measures_the_same_again(
    evaluated: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run, _ = evaluated
    monkeypatch.chdir(run.parents[1])
    options = ("--samples", "50", "--real", "100", "--device", "cpu", "--json", "--ppl", "4")
    assert evaluate(["evaluated@best", *options, "--out", "runs/evaluated/chart.svg"]) == 0
    out = capsys.readouterr().out
    shown = json.loads(out.splitlines()[-1])["runs"][0]
    kept = best_checkpoint.best(run / "checkpoints")
    assert kept is not None
    found = shown["metrics"][METRIC]
    assert found["value"] == pytest.approx(kept.value, rel=1e-6)
    assert found["sd"] > 0
    assert found["baseline_n"] == 50
    assert found["baseline"] < found["value"]  # it has learned nothing in 400 images
    assert shown["metrics"]["ppl_z_efficientnet_lite0"]["value"] > 0
    assert shown["metrics"]["ppl_z_efficientnet_lite0"]["baseline"] is None
    assert json.loads((run / "evaluation.json").read_text()) == shown
    assert "50 samples against 100 images of small at 16×16 px" in out
    chart = (run / "chart.svg").read_text()
    assert "during training" in chart
    assert METRIC in chart


@pytest.fixture
def in_runs(evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(evaluated[1].parents[1])
    return


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none"], "runs/none/config.json: no run there"),
        (["evaluated", "--samples", "10"], "--samples 10: must be an integer from 50"),
        (["evaluated", "--out", "a.png"], "extension must be .svg"),
        (["none", "--out", "/proc/a.svg"], "--out /proc/a.svg: cannot be written"),
        (["none", "--seed", str(2**70)], f"--seed {2**70}: must be an integer"),
        (["evaluated", "--inception", "none.pth"], "none.pth: No such file"),
        (["evaluated", "--shards", "nowhere"], "no shard index there"),
        (["evaluated@best-of-all"], "no checkpoint 'best-of-all'"),
        (
            ["evaluated", "--equivariance", "8"],
            "evaluated: its generator has no input that can be shifted",
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
    ("sizes", "labels", "line"),
    [
        ((40, 70), (), "has fewer labels than the run run"),
        ((40, 70), ("a", "b", "c"), "has more labels than the run run"),
        ((40, 30), (), "only 70 real images"),
    ],
)
def test_shards_that_do_not_fit_are_refused_before_any_work(
    sizes: tuple[int, ...], labels: tuple[str, ...], line: str, in_process: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    labelled = SmallShards(tmp_path / "labelled", labels=("a", "b"))
    conditions = ("--generator.condition", "embedding", "--discriminator.condition", "projection")
    run = tmp_path / "runs" / "run"
    assert in_process(run, labelled, "--total-kimg", "0.016", *conditions) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(comparison, "load_feature_network")
    shards = SmallShards(tmp_path / "other", sizes, labels=labels)
    assert evaluate(["run", "--shards", str(shards.manifest), "--device", "cpu"]) == 2
    assert line in capsys.readouterr().err


def test_too_few_images_are_told(
    small_shards: Any, in_process: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_shards(sizes=(40, 30))
    options = (*EVALUATED, "--total-kimg", "0.2")
    assert in_process(tmp_path / "runs" / "few", shards, *options) == 0
    assert "too few images for evaluations during training: 70" in capsys.readouterr().out


def test_names_choose_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "odd@best").mkdir(parents=True)
    assert parse_run_spec("shells@best") == ("shells", "best")
    assert parse_run_spec("shells") == ("shells", "newest")
    assert parse_run_spec("odd@best") == ("odd@best", "newest")
    assert parse_run_spec(f"a@b{os.sep}run") == (f"a@b{os.sep}run", "newest")

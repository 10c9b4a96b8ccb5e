"""The same command again: exact continuation after kills, signals, refusals."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import Fit, read_run

Read = Callable[[Path], tuple[list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted run: (its `Fit`, its shards, its folder, what it said)."""
    folder = tmp_path_factory.mktemp("whole")
    shards, fit = SmallShards(folder / "set"), Fit(folder / "work")
    done = fit(shards.manifest, "--run", "whole")
    assert done.returncode == 0, done.stderr
    return fit, shards, folder / "work" / "runs" / "whole", done.stdout


def assert_equal(run: Path, other: Path, read: Read) -> None:
    rows, weights = read(run)
    other_rows, other_weights = read(other)
    assert rows == other_rows
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_run_says_what_it_takes_and_leaves_its_files(whole: Any) -> None:
    _, _, run, said = whole
    for words in ("parameters", "memory: about", "disk: checkpoints", "forecast:", "kimg", "done"):
        assert words in said
    assert {path.name for path in run.iterdir()} == {
        ".lock", "checkpoints", "config.json", "metrics.jsonl", "report.html", "samples",
        "tensorboard",
    }  # fmt: skip
    assert [path.name for path in sorted((run / "samples").iterdir())] == [
        "0000000000.png", "0000000200.png", "0000000400.png",
    ]  # fmt: skip
    assert len(list((run / "checkpoints").glob("*.pt"))) == 3
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["generator.width"] == 4
    assert config["config"]["total_kimg"] == 0.4


def test_killed_at_random_moments_ends_bit_for_bit_the_same(whole: Any, in_process: Any) -> None:
    fit, shards, run, _ = whole
    killed, chance = run.parent / "killed", random.Random(os.environ.get("KILL_SEED", "0"))
    kills = 0
    for _ in range(int(os.environ.get("KILLS", "2"))):
        had = len(_lines(killed))
        with fit.start(shards.manifest, "--run", "killed") as process:
            while process.poll() is None and len(_lines(killed)) <= had:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
            kills += process.poll() is None
            process.kill()
            process.communicate()
    assert kills
    assert in_process(killed, shards) == 0
    assert_equal(run, killed, read_run)
    assert len(list((killed / "checkpoints").iterdir())) == 6  # nothing half-made is left


def _lines(run: Path) -> list[str]:
    try:
        return (run / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return []


def test_an_interrupt_saves_and_exits_130(whole: Any, in_process: Any) -> None:
    fit, shards, run, _ = whole
    stopped = run.parent / "stopped"
    with fit.start(shards.manifest, "--run", "stopped") as process:
        while process.poll() is None and len(_lines(stopped)) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    assert "interrupted, state saved" in out
    seen = max(int(path.stem) for path in (stopped / "checkpoints").glob("*.pt"))
    assert 0 < seen < 400
    assert in_process(stopped, shards) == 0
    assert_equal(run, stopped, read_run)


def test_sigterm_does_the_same(
    whole: Any, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.callbacks import ConsoleCallback

    _, shards, run, _ = whole
    update = ConsoleCallback.after_step

    def tell(console: ConsoleCallback) -> None:
        update(console)
        if console.loop.state.seen == 104:  # between two rows and two checkpoints
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    termed = run.parent / "termed"
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleCallback, "after_step", tell)
        assert in_process(termed, shards) == 130
    assert signal.getsignal(signal.SIGTERM) is handler
    assert max((termed / "checkpoints").glob("*.pt")).stem == "0000000104"
    assert in_process(termed, shards) == 0
    assert_equal(run, termed, read_run)


def test_finished_says_so_damaged_falls_back_and_more_kimg_trains_on(
    whole: Any, in_process: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shards, run, _ = whole
    before = (run / "metrics.jsonl").read_text()
    assert in_process(run, shards) == 0
    assert "already finished, 0.4 of 0.4 kimg" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_text() == before
    newest = max((run / "checkpoints").glob("*.pt"))
    good = newest.read_bytes()
    newest.write_bytes(good[: len(good) // 2])
    assert in_process(run, shards) == 0
    said = capsys.readouterr().out
    assert f"warning: runs/whole/checkpoints/{newest.name}" in said
    assert "falling back to the one before" in said
    assert "resuming at 0.36 kimg" in said
    rows, weights = read_run(run)
    assert [json.dumps(row) for row in rows] == [
        json.dumps({k: v for k, v in json.loads(x).items() if k != "images_per_second"})
        for x in before.splitlines()
    ]
    assert max((run / "checkpoints").glob("*.pt")).name == newest.name
    kept = torch.load(newest, weights_only=True)["state"]["generator"]
    assert all(torch.equal(kept[k], weights[f"generator.{k}"]) for k in kept)
    assert in_process(run, shards, "--total-kimg", "0.44") == 0
    assert "resuming at 0.4 kimg" in capsys.readouterr().out
    assert read_run(run)[0][: len(rows)] == rows
    assert len(read_run(run)[0]) > len(rows)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("--seed", "3"), "seed = 0"),
        (("--batch", "4"), "batch = 8"),
        (("--generator.width", "8"), "generator.width = 4"),
        (("--data.mirror", "true"), "data.mirror = False"),
    ],
)
def test_another_configuration_is_refused_with_the_key(
    whole: Any, in_process: Any, change: Any, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shards, run, _ = whole
    before = (run / "config.json").read_text()
    assert in_process(run, shards, *change) == 2
    said = capsys.readouterr().err
    assert f"runs/whole/config.json: {key.replace(' = ', ' is ')} in the run" in said
    assert said.count("\n") == 1
    assert (run / "config.json").read_text() == before


def test_other_shards_and_a_run_in_use_are_refused(
    whole: Any, in_process: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from training.runs import Run, lock_run

    _, shards, run, _ = whole
    others = SmallShards(tmp_path / "others", sizes=(20, 20))
    assert in_process(run, others) == 2
    assert "trained on dataset" in capsys.readouterr().err
    with lock_run(Run(run)):
        assert in_process(run, shards) == 2
    assert "another process is training this run" in capsys.readouterr().err

"""A run whose number of threads changes while it trains: told, recorded, resumed with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.planning import tuning
from training.planning.tuning import LiveThreads

LONG = ("--threads", "0", "--record.log_kimg", "0.1")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, float]]:
    """What measuring tells by number of threads; a second passes whenever the time is asked for,
    and each measurement is true."""
    times, seconds = {1: 1.0, 2: 0.5}, iter(range(1_000_000))
    monkeypatch.setattr(tuning, "WINDOW", 0.0)

    def live(config: Any, most: int) -> LiveThreads:
        return LiveThreads(config, most, lambda: float(next(seconds)), times.__getitem__)

    monkeypatch.setattr("training.callbacks.threads.LiveThreads", live)
    monkeypatch.setattr(tuning.ThreadTuner, "undo", lambda self, _: self.threads)
    monkeypatch.setattr("training.planning.threads.seconds", times.__getitem__)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield times
    torch.set_num_threads(before)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_change_is_told_and_recorded_and_a_run_goes_on_with_it(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    machine: dict[int, float], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    assert in_process(run, shards, *LONG, "--total-kimg", "0.08") == 0
    assert {row["threads"] for row in rows_of(run)} <= {2}
    machine[2] = 3.0  # beside another program
    assert in_process(run, shards, *LONG, "--total-kimg", "0.2") == 0
    said = capsys.readouterr().out
    assert "1 instead of 2 CPU threads: other programs use the cores" in said
    assert torch.get_num_threads() == 1
    values = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    assert values["threads"] == 1
    rows = rows_of(run)
    found = re.search(r"^at ([\d.]+) kimg: 1 instead", said, re.MULTILINE)
    assert found is not None
    at = round(float(found[1]) * 1000)
    assert [row["threads"] for row in rows if row["seen"] <= at] == [2] * sum(
        row["seen"] <= at for row in rows
    )
    assert any(row["seen"] == at for row in rows)  # the change begins where a row ends
    assert all(row["threads"] == 1 for row in rows if row["seen"] > at)
    assert json.loads((run / "config.json").read_text())["config"]["threads"] == 0

    torch.set_num_threads(2)  # as in a new process
    assert in_process(run, shards, *LONG, "--total-kimg", "0.24") == 0
    assert "1 thread, fp32" in capsys.readouterr().out  # begins with what it was saved with
    machine[2] = 0.5
    torch.set_num_threads(2)
    assert in_process(run, shards, *LONG) == 0
    assert "2 instead of 1 CPU threads: the cores are free again" in capsys.readouterr().out
    assert torch.get_num_threads() == 2


def test_a_number_that_is_given_never_changes(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    machine: dict[int, float], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    machine[2] = 3.0
    assert in_process(run, shards, "--threads", "2", "--total-kimg", "0.2") == 0
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert in_process(run, shards, "--threads", "0") == 0  # begun with a number: it stays
    assert torch.get_num_threads() == 2
    assert "instead of" not in capsys.readouterr().out
    assert all("threads" not in row for row in rows_of(run))
    assert in_process(run, shards, "--threads", "1") == 2
    assert "threads is 2 in the run, 1 in the command" in capsys.readouterr().err


def test_a_run_without_a_given_number_can_be_given_one(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    machine: dict[int, float], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    assert in_process(run, shards, *LONG, "--total-kimg", "0.08") == 0
    machine[2] = 3.0
    assert in_process(run, shards, "--threads", "2", "--record.log_kimg", "0.1") == 0
    assert torch.get_num_threads() == 2
    assert "instead of" not in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["config"]["threads"] == 2


def test_a_run_that_was_recorded_with_a_number_by_an_earlier_version_keeps_it(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    machine: dict[int, float],
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    assert in_process(run, shards, *LONG, "--total-kimg", "0.08") == 0
    described = json.loads((run / "config.json").read_text())
    described["config"]["threads"] = 1
    (run / "config.json").write_text(json.dumps(described))
    assert in_process(run, shards, *LONG) == 0
    assert torch.get_num_threads() == 1

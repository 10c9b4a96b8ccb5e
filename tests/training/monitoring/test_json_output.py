"""`--json`: what a program reads of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.monitoring.console import JsonDisplay, TrainingProgress


def test_every_line_is_an_object_and_the_last_tells_the_outcome(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "runs" / "told"
    shards = small_shards()
    capsys.readouterr()
    options = ("--total-kimg", "0.08", "--price-per-hour", "7", "--json")
    assert in_process(run, shards, *options) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in events} == {"message", "progress", "end"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = [event["row"] for event in events if event["event"] == "progress"]
    assert all(row in told for row in rows)  # every row is told when it is made
    end = events[-1]
    assert (end["event"], end["reason"], end["seen"]) == ("end", "done", 80)
    assert end["cost"] == pytest.approx(end["seconds"] / 3600 * 7, abs=1e-3)
    assert Path(end["report"]).is_file()
    assert Path(end["samples"]).is_file()


def test_a_dry_run_tells_its_forecast(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards = small_shards()
    capsys.readouterr()
    options = ("--total-kimg", "10", "--dry-run", "--json")
    assert in_process(tmp_path / "runs" / "dry", shards, *options) == 0
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["kimg"] == 10
    assert end["seconds"] == pytest.approx(10 * end["seconds_per_kimg"], rel=0.01)
    assert end["memory_bytes"] > 0


@pytest.mark.parametrize(
    ("total", "left", "end", "expected"),
    [
        (100_000, 980.0, "100", 100_000),  # the images end the run
        (1_000_000, 980.0, "~100", 100_000),  # its time
        (1_000_000, None, "1000", 1_000_000),
    ],
    ids=["images", "time", "unknown"],
)
def test_progress_counts_to_the_images_that_the_time_allows(
    total: int,
    left: float | None,
    end: str,
    expected: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = TrainingProgress(2000, total, 100.0, left, None)
    assert progress.text().startswith(f"2.0/{end} kimg  ")
    JsonDisplay().update(progress)
    assert json.loads(capsys.readouterr().out)["expected"] == expected

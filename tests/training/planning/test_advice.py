"""What `--preset auto` says about its progress and its result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training import fit
from training.callbacks.advice import AdviceCallback
from training.options.resolve import resolve
from training.planning.advice import Progress, conclusion, expectation, recent_mean

EARLY = Progress(
    12, 113, 2383, 0.03, fd=80.0, limit=22.0, fd_kimg=11.3, recall=0.05, diversity=0.8, r_t=0.6
)


def test_the_expected_distance_is_that_of_earlier_runs() -> None:
    """FD after 37 and 113 kimg of one run (benchmarks/quality.md)."""
    assert replace(EARLY, fd=38.7, fd_kimg=37).fd_at(113) == pytest.approx(28.4, abs=0.5)
    cut_out = replace(EARLY, plain=1.0, fd=67.3, limit=20.5, fd_kimg=19.6)
    assert cut_out.fd_at(60.4) == pytest.approx(43.6, abs=1.5)
    drawn = replace(cut_out, fd=201.5, limit=15.7, fd_kimg=58, drawn=True)
    assert drawn.fd_at(441) == pytest.approx(153.2, abs=2)
    assert replace(EARLY, fd=20.0).fd_at(113) == 20.0  # at the limit nothing is left to gain


def test_after_a_tenth_it_says_what_to_expect() -> None:
    said = expectation(EARLY)
    assert said.startswith("auto: after 12 of 113 kimg: samples vary 80% as much as real images; ")
    assert "FD 80, about 29 is to be expected at 113 kimg" in said
    assert "too alike" not in said
    assert "memorises" not in said
    assert "too alike" in expectation(replace(EARLY, diversity=0.2))
    assert "memorises" in expectation(replace(EARLY, r_t=0.95))
    early = replace(EARLY, alone=60.0)
    assert "begins at 60 kimg: discriminators on frozen" in expectation(early)
    assert "most: discriminators on frozen features, which join at 60 kimg, then" in conclusion(
        early
    )
    assert "frozen features" not in conclusion(replace(early, fd_kimg=70))
    assert "no evaluation yet" in expectation(replace(EARLY, fd=None))


def test_images_that_are_all_alike_are_no_limit() -> None:
    for limit in (0.0, -1e-12, 3e-12):
        assert "real images are all alike" in conclusion(replace(EARLY, limit=limit))


def test_at_the_end_it_says_what_would_help_most() -> None:
    early = conclusion(replace(EARLY, kimg=15))
    assert "3.6 times the limit" in early
    assert "what would help most: twice the time, for an FD of about 53, then even" in early
    copied = conclusion(replace(EARLY, copies=0.3))
    assert copied.index("more images: 30%") < copied.index("twice the time")
    assert conclusion(replace(EARLY, fd=25.0)).endswith("more time would help little")
    assert "as close as can be measured" in conclusion(replace(EARLY, fd=21.0))
    assert "even backgrounds" not in conclusion(replace(EARLY, plain=0.9))
    assert "without an evaluation" in conclusion(replace(EARLY, limit=None))


def test_recent_stats_are_averaged() -> None:
    rows: list[dict[str, Any]] = [{"a": 100.0, "b": 1.0}, *({"a": 2.0, "b": 4.0} for _ in range(5))]
    assert recent_mean(rows, "a", "b") == 0.5
    assert recent_mean(rows, "a") == 2.0
    assert recent_mean(rows, "c") is None
    assert recent_mean([{"a": 1.0, "b": 0.0}], "a", "b") is None


def run_of_auto(**options: str) -> Any:
    """What the callback reads of a run, after a minute and before its first step."""
    said: list[str] = []
    config = replace(resolve("projected64", options), preset="auto")
    evaluator = SimpleNamespace(newest=lambda rows: rows[-1] if rows else {}, limit=22.0)
    return SimpleNamespace(
        config=config, total=int(config.total_kimg * 1000), seconds=60.0,
        state=SimpleNamespace(seen=0), ranks=SimpleNamespace(is_main=True),
        source=SimpleNamespace(index=SimpleNamespace(nsamples=2383)),
        log=SimpleNamespace(row=None), history=SimpleNamespace(rows=[]),
        evaluation=SimpleNamespace(evaluator=evaluator),
        display=SimpleNamespace(message=said.append), said=said,
    )  # fmt: skip


@pytest.mark.parametrize("total", ["1000", "30"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_the_line_comes_after_a_tenth_of_what_the_run_will_make(
    total: str, evaluated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour at ten images per second makes 35.4 thousand of 1000 ones, or all 30."""
    monkeypatch.setattr("training.callbacks.advice.plain_fraction", lambda *_: 0.0)
    run = run_of_auto(max_hours="1", total_kimg=total)
    callback = AdviceCallback(run)
    callback.on_start()
    while run.state.seen < 10_000 and not run.said:
        run.state.seen += 100
        run.seconds += 10.0
        run.log.row = {"fd": 80.0, "seen": run.state.seen} if evaluated else {}
        run.history.rows.append(run.log.row)
        callback.after_step()
    end = min(35.4, float(total))
    assert run.state.seen / 1000 == pytest.approx(end * (0.1 if evaluated else 0.2), abs=0.1)
    assert f"of {end:g} kimg: " in run.said[0]
    assert ("is to be expected at" in run.said[0]) is evaluated
    assert ("no evaluation yet" in run.said[0]) is not evaluated


@pytest.mark.slow
def test_a_run_of_auto_says_both_and_so_does_a_resumed_one(
    small_shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "generator.width": "4", "discriminator.width": "8", "discriminator.pixel_width": "4",
        "discriminator.size": "32", "generator.z_dim": "8", "batch": "8", "device": "cpu",
        "burn_in.kimg": "0.2", "evaluate.kimg": "0.05", "evaluate.samples": "50",
        "record.log_kimg": "0.01", "threads": "1",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    words = ["--shards", str(small_shards().manifest), "--preset", "auto", *words]
    assert fit.main([*words, "--total_kimg", "0.1"]) == 0
    said = capsys.readouterr().out
    assert said.count("is to be expected at 0.1 kimg") + said.count("no evaluation yet") == 1
    assert said.count("real images against each other") == 1
    assert fit.main([*words, "--total_kimg", "0.2"]) == 0
    said = capsys.readouterr().out
    assert said.count("of 0.2 kimg: samples vary") == 1
    assert said.count("real images against each other") == 1

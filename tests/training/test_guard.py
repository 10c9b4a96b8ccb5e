"""A run that turns to NaN is rolled back to its last good state, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import training.loop
from tests.helpers.training_runs import read_run
from training import checkpoint
from training.step import Step


class Poisoned(Step):
    """Spoils a weight once, after 200 images."""

    def __call__(self, batches: Any) -> Any:
        stats = super().__call__(batches)
        if self.state.seen == 200 and self.state.restarts == 0:
            with torch.no_grad():
                next(self.state.generator.parameters()).fill_(float("nan"))
        return stats


def finite(values: dict[str, Any]) -> bool:
    networks = (values["state"][name] for name in ("generator", "discriminator", "average"))
    return all(t.isfinite().all() for network in networks for t in network.values())


def test_nan_sets_the_run_back_and_it_goes_on(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(training.loop, "Step", Poisoned)
    run = tmp_path / "runs" / "poisoned"
    assert in_process(run, small_shards()) == 0
    said = capsys.readouterr().out
    assert "warning: the weights became NaN or infinite before 0.2 kimg; rolled back to" in said
    assert "rolled back to 0.16 kimg with new random draws (attempt 1 of 3)" in said
    rows, weights = read_run(run)
    assert [row["seen"] for row in rows] == list(range(16, 401, 16))
    assert all(tensor.isfinite().all() for tensor in weights.values())
    values, _ = checkpoint.load_newest(run / "checkpoints")
    assert values is not None
    assert values["state"]["restarts"] == 1


def test_a_rollback_counts_no_time_twice(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, shards = tmp_path / "runs" / "poisoned", small_shards()
    assert in_process(run, shards, "--total-kimg", "0.08") == 0

    def seconds() -> float:
        values, _ = checkpoint.load_newest(run / "checkpoints")
        assert values is not None
        return float(values["seconds"])

    before = seconds()
    monkeypatch.setattr(training.loop, "Step", Poisoned)
    start = time.monotonic()
    assert in_process(run, shards) == 0
    assert before < seconds() <= before + time.monotonic() - start


def test_an_error_while_weights_are_nan_saves_nothing(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Failing(Poisoned):
        def __call__(self, batches: Any) -> Any:
            if self.state.seen == 200:
                raise RuntimeError("the device is lost")
            return super().__call__(batches)

    monkeypatch.setattr(training.loop, "Step", Failing)
    run = tmp_path / "runs" / "lost"
    options = ("--record.keep", "1", "--record.log_kimg", "1", "--record.checkpoint_kimg", "0.16")
    with pytest.raises(RuntimeError, match="the device is lost"):
        in_process(run, small_shards(), *options)
    values, damaged = checkpoint.load_newest(run / "checkpoints")
    assert values is not None
    assert (values["state"]["seen"], damaged) == (160, [])
    assert finite(values)


def test_a_run_that_always_diverges_stops_with_remedies_and_a_good_state(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "runs" / "wild"
    options = ("--g_optimizer.lr", "1e30", "--max_restarts", "2", "--record.checkpoint_kimg", "9")
    assert in_process(run, small_shards(), *options) == 1
    said = capsys.readouterr().out
    assert said.count("rolled back to 0 kimg") == 2
    assert "stopped: it became NaN again and again; lower the learning rates" in said
    values, _ = checkpoint.load_newest(run / "checkpoints")
    assert values is None or finite(values)

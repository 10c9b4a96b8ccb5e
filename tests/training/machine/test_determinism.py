"""The option that allows only operations with the same bits each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import training.loop
from tests.helpers.training_runs import read_run
from training.machine.determinism import determinism
from training.machine.device import choose_device
from training.step import Step


def test_cuda_may_try_convolutions_only_where_it_is_not_asked_for() -> None:
    cuda, cudnn = torch.device("cuda"), torch.backends.cudnn
    for asked in (False, True):
        with determinism(asked, cuda):
            assert cudnn.benchmark is not asked
            assert torch.are_deterministic_algorithms_enabled() is asked
    assert not cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_is_not_deterministic_is_named() -> None:
    values, places = torch.zeros(4), torch.tensor([1, 1])
    with determinism(True, torch.device("cpu")), pytest.raises(RuntimeError, match="put_"):
        values.put_(places, torch.tensor([1.0, 2.0]))
    values.put_(places, torch.tensor([1.0, 2.0]))


def test_a_run_trains_under_it_and_to_the_same_bits(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen = set()

    class Watched(Step):
        def __call__(self, batches: Any) -> Any:
            seen.add(torch.are_deterministic_algorithms_enabled())
            return super().__call__(batches)

    monkeypatch.setattr(training.loop, "Step", Watched)
    shards, runs = small_shards(), tmp_path / "runs"
    few = ("--total-kimg", "0.08")
    assert in_process(runs / "strict", shards, *few, "--deterministic", "true") == 0
    assert seen == {True}
    assert in_process(runs / "free", shards, *few) == 0
    assert seen == {True, False}
    rows, weights = read_run(runs / "strict")
    other_rows, other_weights = read_run(runs / "free")
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_tf32_is_off_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of real images must not depend on the device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    try:
        convolutions.allow_tf32 = products.allow_tf32 = True
        assert choose_device("auto") == torch.device("cuda")
        assert (convolutions.allow_tf32, products.allow_tf32) == (False, False)
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before

"""Networks compiled by PyTorch: the same training, the same names, resumable.

Some 30 s: inductor really compiles (forward and backward, thrice); a fake backend would show
neither that our networks can be compiled nor that a continued run has the same bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError
from tests.helpers.training_runs import read_run
from training.options.resolve import resolve

OPTIONS = (
    "--total-kimg", "0.048", "--discriminator.spectral", "true", "--loss.r1", "0.1",
    "--loss.interval", "2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _compiler_warnings() -> Any:
    """PyTorch's own, about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.compiler.reset()


def test_a_compiled_run_is_the_plain_one_and_goes_on_bit_for_bit(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any
) -> None:
    shards, runs = small_shards(), tmp_path / "runs"
    fast = ("--compile", "true")
    for name, options in (("plain", ()), ("whole", fast)):
        assert in_process(runs / name, shards, *OPTIONS, *options) == 0
    assert in_process(runs / "again", shards, *OPTIONS, *fast, "--total-kimg", "0.024") == 0
    assert in_process(runs / "again", shards, *OPTIONS, *fast) == 0
    rows, weights = read_run(runs / "whole")
    other_rows, others = read_run(runs / "again")
    assert rows == other_rows
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    plain_rows, plain = read_run(runs / "plain")
    assert weights.keys() == plain.keys()  # a checkpoint can be loaded with and without
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-3)
    assert [row["r1"] for row in rows] == pytest.approx([row["r1"] for row in plain_rows], rel=1e-2)


def test_waiting_for_other_processes_inside_of_a_network_is_refused() -> None:
    with pytest.raises(UserError, match="compile: not supported"):
        resolve("dcgan64", {"compile": "true", "sync_batch_norm": "true"})

"""Two processes continue a run from the checkpoint of the first bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.training_runs import read_run
from training.fit import main

OPTIONS = (
    "--preset", "stylegan2-64", "--resolution", "16", "--batch", "8", "--precision", "fp32",
    "--device", "cpu", "--generator.channel_max", "8", "--discriminator.channel_max", "8",
    "--generator.z_dim", "8", "--generator.w_dim", "8", "--loss.interval", "3",
    "--loss.path_interval", "2", "--augment.ada", "bgc", "--augment.ada_interval", "2",
    "--augment.ada_kimg", "0.1", "--augment.ada_target=-1", "--d_optimizer.lr", "0.02",
    "--record.log_kimg", "0.032", "--record.grid", "4",
)  # fmt: skip
"""The checkpoint after five of seven steps is between two adjustments of p and two rows; the second
follows an interval before it."""


def train_on_rank(ports: str, *options: str) -> None:
    """Train seven steps at once, and five steps and then two."""
    for port, run, steps in zip(ports.split(), ("whole", "parts", "parts"), (7, 5, 7), strict=True):
        os.environ["MASTER_PORT"] = port
        total = ("--run", run, "--total-kimg", str(steps * 0.008))
        assert main([*options, *total]) == 0


def test_path_lengths_and_adaptive_augmentation_continue(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards, ports = small_shards(), " ".join(free_ports(3))
    told = run_ranks(train_on_rank, 2, tmp_path, ports, "--shards", str(shards.manifest), *OPTIONS)
    assert "resuming at 0.04 kimg" in told[0]
    assert told[0].count("for decoded images, shared by 2 processes of ") == 3
    (whole_rows, whole), (rows, parts) = (
        read_run(tmp_path / "runs" / name) for name in ("whole", "parts")
    )
    assert rows[-1] == pytest.approx(whole_rows[-1], rel=1e-4)  # sums were told earlier
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    scalars = [
        torch.load(max((tmp_path / "runs" / name / "checkpoints").glob("*.pt")))["state"]["scalars"]
        for name in ("whole", "parts")
    ]
    moved = ("path_mean", "augment_p", "augment_earlier", "augment_signs")
    assert all(float(scalars[0][name]) for name in moved), scalars[0]
    assert all(torch.equal(scalars[1][name], value) for name, value in scalars[0].items())

"""Two processes continue a run from the checkpoint of the first bit for bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.training_runs import read_run

ROOT = Path(__file__).parents[3]
WORK = """
import os
import sys
from training.fit import main

for port, run, kimg in zip(sys.argv[1].split(), ("whole", "parts", "parts"), ("7", "5", "7")):
    os.environ["MASTER_PORT"] = port
    total = ("--run", run, "--total-kimg", str(int(kimg) * 0.008))
    assert main([*sys.argv[2:], *total]) == 0
"""
OPTIONS = (
    "--preset", "stylegan2-64", "--resolution", "16", "--batch", "8", "--precision", "fp32",
    "--device", "cpu", "--generator.channel_max", "8", "--discriminator.channel_max", "8",
    "--generator.z_dim", "8", "--generator.w_dim", "8", "--loss.interval", "3",
    "--loss.path_interval", "2", "--augment.ada", "bgc", "--augment.ada_interval", "4",
    "--augment.ada_kimg", "0.1", "--augment.ada_target=-1", "--d_optimizer.lr", "0.02",
    "--record.log_kimg", "0.032", "--record.grid", "4",
)  # fmt: skip
"""The checkpoint after five of seven steps is between two adjustments of p and two rows."""


def free_ports(count: int) -> str:
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            place = stack.enter_context(socket.socket())
            place.bind(("127.0.0.1", 0))
            found.append(str(place.getsockname()[1]))
        return " ".join(found)


def test_path_lengths_and_adaptive_augmentation_continue(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards, ports, started = small_shards(), free_ports(3), []
    for rank in range(2):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
            "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
        }  # fmt: skip
        command = [
            sys.executable, "-c", WORK, ports, "--shards", str(shards.manifest), *OPTIONS,
        ]  # fmt: skip
        started.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    told = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, told, strict=True):
        assert process.returncode == 0, errors
    assert "resuming at 0.04 kimg" in told[0][0]
    (whole_rows, whole), (rows, parts) = (
        read_run(tmp_path / "runs" / name) for name in ("whole", "parts")
    )
    assert rows[-1] == pytest.approx(whole_rows[-1], rel=1e-4)  # sums were told earlier
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    scalars = [
        torch.load(max((tmp_path / "runs" / name / "checkpoints").glob("*.pt")))["state"]["scalars"]
        for name in ("whole", "parts")
    ]
    moved = ("path_mean", "augment_p", "augment_signs")
    assert all(float(scalars[0][name]) for name in moved), scalars[0]
    assert all(torch.equal(scalars[1][name], value) for name, value in scalars[0].items())

"""Tiny training runs, in this process or in one of their own, and what they wrote."""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.helpers.processes import child_env
from tests.helpers.small_shards import SmallShards

TINY = (
    "--total-kimg", "0.4", "--batch", "8", "--device", "cpu", "--precision", "fp32",
    "--generator.width", "4", "--generator.z_dim", "8", "--discriminator.width", "4",
    "--record.log_kimg", "0.016", "--record.sample_kimg", "0.2", "--record.checkpoint_kimg", "0.04",
    "--record.grid", "4", "--record.time_share", "0", "--threads", "1", "--resolution", "16",
)  # fmt: skip
"""A run of 50 steps that takes a second once torch is there."""


def fit_here(name: str, shards: SmallShards | str, *options: str) -> int:
    """Run the command in this process and folder, which spares the seconds that torch takes: the
    tiny run called `name`; its exit status."""
    from training.fit import main

    where = shards if isinstance(shards, str) else str(shards.manifest)
    status = main(["--shards", where, "--run", name, *TINY, *options])
    _freeze_imports()
    return status


@functools.cache
def _freeze_imports() -> None:
    """Leave what the first run imported out of garbage collections, see `conftest.py`."""
    gc.collect()
    gc.freeze()


class Fit:
    """`python -m training.fit` in a folder, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, shards: str | Path, *options: str) -> list[str]:
        return [sys.executable, "-m", "training.fit", "--shards", str(shards), *TINY, *options]

    def start(self, shards: str | Path, *options: str, **more: Any) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command(shards, *options), cwd=self.folder, env=child_env(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def __call__(
        self, shards: str | Path, *options: str, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        with self.start(shards, *options, **more) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run without what the clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key != "images_per_second"} for row in rows]


def weights(run: Path) -> dict[str, Any]:
    """All tensors of the run's newest checkpoint, by name."""
    newest = max((run / "checkpoints").glob("*.pt"))
    values = torch.load(newest, weights_only=True)["state"]
    return {
        f"{network}.{name}": tensor
        for network in ("generator", "discriminator", "average")
        for name, tensor in values[network].items()
    }


def read_run(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The metrics and weights of a run's folder."""
    return metrics(run), weights(run)

"""Trains for a given CPU time, which other work on the machine does not change."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import training.session  # noqa: F401 - imported once, not by every child
from training.fit import main

PATIENCE = 120.0
"""Seconds after which a trainer that was asked to stop is ended."""
NOTE_EVERY = 5.0


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process with its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(arguments: Sequence[str], folder: Path, wanted: float) -> float:
    """Run `training.fit` with these arguments until it has used `wanted` CPU seconds, then
    interrupt it, so that it writes a checkpoint. Return the seconds that this and earlier calls
    used, which `folder`/cpu-seconds.txt holds; its output goes to `folder`/log.txt. With one thread
    it runs in a fork of this process, whose imports it need not repeat (forks of OpenMP's threads
    can hang).

    Raises:
        SystemExit: the training failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spent = folder / "cpu-seconds.txt"
    before = float(spent.read_text()) if spent.exists() else 0.0
    if before >= wanted:
        return before
    used, noted, asked_at = 0.0, 0.0, 0.0
    context: Any = multiprocessing.get_context("fork" if torch.get_num_threads() == 1 else "spawn")
    process = context.Process(target=_fit, args=(list(arguments), folder / "log.txt"))
    process.start()
    assert process.pid is not None
    while process.is_alive():
        used = cpu_seconds(process.pid)
        if used > noted + NOTE_EVERY:  # of a call that is killed
            spent.write_text(f"{before + used:.1f}\n")
            noted = used
        if before + used >= wanted and not asked_at:
            os.kill(process.pid, signal.SIGINT)
            asked_at = time.monotonic()
        if asked_at and time.monotonic() > asked_at + PATIENCE:
            process.kill()
        process.join(0.2)
    if process.exitcode not in (0, 130):
        raise SystemExit(f"{folder / 'log.txt'}: the training ended with {process.exitcode}")
    spent.write_text(f"{before + used:.1f}\n")
    return before + used


def _fit(arguments: list[str], log: Path) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))

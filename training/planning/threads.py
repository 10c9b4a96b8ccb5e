"""How many CPU threads to compute with: as many as pay on this machine now.

On a machine whose cores are busy with other work, two threads that wait for each other after
every operator can be slower than one. So a run that is given no number measures, before its first
step and while it trains (`planning.tuning`). A result depends, in its last bits, on the number of
threads, so its rows and checkpoints say which it was.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from training import checkpoint
from training.config import Config
from training.runs import Run, read_config

MAX_TIME_RATIO = 0.8
"""Twice as many threads are taken if they need at most this share of the time."""
MOST = 1024
_ROUNDS, _IMAGES = 4, 4


def recorded_threads(config: Config, run: Run) -> Config:
    """`config` with the number of threads that the run was begun with, if none is given now."""
    if config.threads or not (run.config.exists() and checkpoint.list_checkpoints(run.checkpoints)):
        return config
    recorded = read_config(run)["config"].get("threads", 0)
    return replace(config, threads=recorded) if isinstance(recorded, int) else config


def set_threads(config: Config, before: object) -> tuple[bool, int]:
    """Set PyTorch's number of threads: as given, else as `before`, when the run's checkpoint was
    written, else as measured.

    Returns:
        Whether the number was not given, so that it may change while the run trains, and how many
        threads there are to choose from.
    """
    most = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
        return False, most
    known = before if isinstance(before, int) and 0 < before <= MOST else 0
    torch.set_num_threads(known or choose_threads(most, seconds))
    return True, most


def candidates(most: int) -> list[int]:
    """The numbers of threads to choose from: 1, then by doubling, all, and one less than all, for
    a machine with one other busy program."""
    doubled = {2**power for power in range(most.bit_length())}
    return sorted({1, *doubled, max(1, most - 1), most})


def choose_threads(most: int, measure: Callable[[int], float]) -> int:
    """The number of threads, of `candidates(most)`, that pays.

    Args:
        most: no more than this.
        measure: seconds that a fixed piece of work takes on so many threads.
    """
    if most <= 1:
        return 1
    best, took = 1, measure(1)
    for threads in candidates(most)[1:]:
        took_now = measure(threads)
        if took_now <= MAX_TIME_RATIO ** math.log2(threads / best) * took:
            best, took = threads, took_now
    return best


def seconds(threads: int) -> float:
    """The median time of a small training step's convolutions on so many threads."""
    before, random = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    try:
        layers = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))).to(
            memory_format=torch.channels_last
        )
        images = torch.zeros(_IMAGES, 64, 32, 32).to(memory_format=torch.channels_last)
        times = []
        for _ in range(_ROUNDS + 1):
            began = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = layers(images).float().square().mean()
            torch.autograd.backward(loss)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])  # the first one also plans
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(random)

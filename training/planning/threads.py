"""The number of CPU threads: as many as are worthwhile on this machine at the moment.

If the cores are busy with other programs, two threads that wait for each other after every operator
can be slower than one. So without an explicit number, a run measures before its first step and
while it trains (`planning.tuning`). The last bits of a result depend on the number of threads, so
rows and checkpoints contain it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from training.config import Config
from training.runs import Run, read_config

MAX_TIME_RATIO = 0.8
"""The number of threads is doubled if this reduces the time to at most this fraction."""
MOST = 1024
_ROUNDS, _IMAGES = 4, 4


def recorded_threads(config: Config, run: Run) -> Config:
    """Return `config` with the number of threads that the run was started with, unless one is
    given now."""
    if config.threads or not run.has_results:
        return config
    recorded = read_config(run)["config"].get("threads", 0)
    return replace(config, threads=recorded) if isinstance(recorded, int) else config


def set_threads(config: Config, before: object) -> tuple[bool, int]:
    """Set PyTorch's number of threads: the given one, else that of the checkpoint (`before`), else
    a measured one.

    Returns:
        Whether the number was not given, so that it may change during the run, and how many threads
            are available.
    """
    most = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
        return False, most
    known = before if isinstance(before, int) and 0 < before <= MOST else 0
    torch.set_num_threads(known or choose_threads(most, seconds))
    return True, most


def candidates(most: int) -> list[int]:
    """Return the numbers of threads to choose from: powers of two, all, and all but one, for a
    machine with one other busy program."""
    doubled = {2**power for power in range(most.bit_length())}
    return sorted({1, *doubled, max(1, most - 1), most})


def choose_threads(most: int, measure: Callable[[int], float]) -> int:
    """Return the number of threads, of `candidates(most)`, that is worthwhile.

    Args:
        most: maximum number.
        measure: returns the seconds that a fixed workload takes on this many threads.
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
    """Return the median time of the convolutions of a small training step on this many threads."""
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
        return statistics.median(times[1:])  # the first one also initialises
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(random)

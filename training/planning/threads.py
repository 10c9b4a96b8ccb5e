"""How many CPU threads to compute with: as many as pay on this machine now.

On a machine whose cores are busy with other work, two threads that wait for each other after
every operator can be a hundred times slower than one. So a new run measures, and writes what it
chose into its configuration: a result depends, in its last bits, on the number of threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from training import checkpoint
from training.config import Config
from training.runs import Run, read_config

PAYS = 0.8
"""More threads are taken where they need at most this share of the time."""
_ROUNDS = 5


def settle_threads(config: Config, run: Run) -> tuple[Config, bool]:
    """`config` with its number of threads: as given, else as recorded, else as measured; and
    whether the number was not given.

    Sets PyTorch's number of threads to it.
    """
    threads = config.threads or _recorded(run) or choose_threads(torch.get_num_threads(), seconds)
    torch.set_num_threads(threads)
    return replace(config, threads=threads), not config.threads


def choose_threads(most: int, measure: Callable[[int], float]) -> int:
    """The number of threads, 1 to `most` by doubling, that pays.

    Args:
        most: no more than this.
        measure: seconds that a fixed piece of work takes on so many threads.
    """
    best, took = 1, measure(1) if most > 1 else 0.0
    candidates = sorted({most, *(2**power for power in range(1, most.bit_length()))} - {1})
    for threads in candidates:
        if threads <= most and (took_now := measure(threads)) <= PAYS * took:
            best, took = threads, took_now
    return best


def seconds(threads: int) -> float:
    """The median time of a small training step's convolutions on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layers = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))).to(
            memory_format=torch.channels_last
        )
        images = torch.zeros(16, 64, 32, 32).to(memory_format=torch.channels_last)
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


def _recorded(run: Run) -> int:
    """What a run with results was begun with; 0 where there is none."""
    if not (run.config.exists() and checkpoint.listed(run.checkpoints)):
        return 0
    return int(read_config(run)["config"].get("threads", 0))

"""Speed of this project's StyleGAN2 compared with a plain DCGAN of 64 px, and its memory.

The trainer's step in bf16 (batch 16, `channel_base` 4096, `channel_max` 128, a mapping network of
two layers: 2.5 and 1.5 million parameters at 64 px) with its moving average, R1 every 16 and path
length every 4 steps. The reference is the usual fp32 step of a DCGAN with batch 32
(`benchmarks/step.py`), alternating, in one process that keeps freed memory as the trainer does (the
reference step needs no new pages either way). On one thread CPU time is measured; with `--threads`,
wall-clock time. `--json` prints as the last line:

- `over_dcgan_64`, `over_dcgan_64_economical`: seconds per image divided by the reference's,
  medians: with the published 4-tap filter and alternating updates, as in `stylegan2-64`, and with
  economical resampling and simultaneous updates, as in `stylegan2-64-economical`;
  `over_dcgan_64_economical_alternating`: economical resampling alone;
- `s_per_kimg_64`, `s_per_kimg_64_economical`, `s_per_kimg_128`, `s_per_kimg_128_economical`;
- `peak_fraction`: for each phase, the fraction of the machine's bf16 matmul peak (measured in the
  same rounds) that its convolutions and matrix products reach;
- `peak_gb_256`: the peak memory of a process that trains the published 256 px network (`paper256`:
  `channel_base` 16384, `channel_max` 512) with batch 16 and all penalties.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from step import MATMUL, seconds, usual_step
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.machine.allocator import retain_freed_memory
from training.networks import ImageShape
from training.state import new_state
from training.step import Step

BATCH, YARDSTICK_BATCH = 16, 32
PHASES = {
    "discriminator": "_train_discriminator",
    "r1": "_penalise",
    "generator": "_train_generator",
    "both": "_train_simultaneously",
    "path_length": "_regularise_paths",
}
KINDS = {
    "": ("filter", "alternating"),
    "_economical": ("economical", "simultaneous"),
    "_economical_alternating": ("economical", "alternating"),
}
"""Resampling and updates of the measured variants, by the suffix of their keys."""
PLAIN, PATHS, ALL = 1, 4, 16
"""Number of steps before: no penalty is due, path length is due, R1 is due, too."""


def configuration(kind: str, base: int, most: int, mapping: int) -> Config:
    resample, updates = KINDS[kind]
    maps = {"name": "stylegan2", "channel_base": base, "channel_max": most, "resample": resample}
    adam = {"lr": 2.5e-3, "beta1": 0.0, "beta2": 0.99}
    return parse_config(
        Config,
        {
            "batch": BATCH, "precision": "bf16", "updates": updates,
            "g_optimizer": adam, "d_optimizer": adam,
            "generator": {**maps, "mapping_layers": mapping}, "discriminator": maps,
            "loss": {"r1": 1.0, "interval": 16, "own_step": True, "path_length": 2.0},
        },
        "benchmark",
    )  # fmt: skip


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts GFLOP of matrix products and convolutions (PyTorch's counter of modules does not
    follow `torch.autograd.grad`)."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=found) / 1e9
        return found


class Phases:
    """A trainer's step that records the duration and operations of its phases."""

    def __init__(self, size: int, kind: str) -> None:
        self.step = new_step(configuration(kind, 4096, 128, 2), size)
        self.batch = random_batch(size)
        self.spent: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self.run(ALL)
        with Work() as counter:  # type: ignore[no-untyped-call]
            self.wrapped(ALL, lambda: counter.total, self.work)

    def run(self, steps: int) -> None:
        """Take a step after `steps` others; its phases' seconds are in `spent`."""
        self.spent.clear()
        self.wrapped(steps, clock(), self.spent)

    def wrapped(self, steps: int, meter: Callable[[], float], into: dict[str, float]) -> None:
        self.step.state.steps = steps
        inside = [0.0]

        def measured(name: str, method: Any) -> Any:
            def call(*given: Any, **more: Any) -> Any:
                start = meter()
                inside.append(0.0)
                found = method(*given, **more)
                whole, nested = meter() - start, inside.pop()
                into[name] = into.get(name, 0.0) + whole - nested
                inside[-1] += whole
                return found

            return call

        for name, method in PHASES.items():
            setattr(self.step, method, measured(name, getattr(Step, method).__get__(self.step)))
        start = meter()
        self.step([self.batch])
        into["rest"] = meter() - start - inside[0]

    def turn(self) -> dict[str, float]:
        """Return mean seconds per phase and step, from steps in which they are due."""
        found: dict[str, list[float]] = {}
        for steps in (PLAIN, PATHS, ALL):
            self.run(steps)
            for name, value in self.spent.items():
                found.setdefault(name, []).append(value)
        due = {"r1": ALL, "path_length": PATHS}
        return {name: statistics.mean(times) / due.get(name, 1) for name, times in found.items()}


def new_step(config: Config, size: int) -> Step:
    device = torch.device("cpu")
    return Step(config, new_state(config, ImageShape(size, size, 3), device), device)


def random_batch(size: int) -> Batch:
    pixels = torch.randint(256, (BATCH, size, size, 3), dtype=torch.uint8)
    return Batch(pixels.permute(0, 3, 1, 2), torch.zeros(BATCH, dtype=torch.int64))


def clock() -> Callable[[], float]:
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def peak_gb(threads: int) -> float:
    """Return the memory of a separate process that takes one step at 256 px with all penalties."""
    command = [sys.executable, __file__, "--memory-only", "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def train_256() -> float:
    """Return the GB of this process after a step at 256 px."""
    step = new_step(configuration("", 16384, 512, 8), 256)
    step.state.steps = ALL
    step([random_batch(256)])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def median(rows: list[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def measure(turns: int, large_turns: int) -> dict[str, Any]:
    """Measure everything but the memory."""
    pixels = torch.randint(256, (YARDSTICK_BATCH, 64, 64, 3), dtype=torch.uint8)
    images, usual = pixels.permute(0, 3, 1, 2), usual_step()
    usual(images)
    left, right = (torch.randn(MATMUL, MATMUL, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)
    kinds = {kind: Phases(64, kind) for kind in KINDS}
    yard, peaks = [], []
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(turns):
        yard.append(seconds(lambda: usual(images), 2) / YARDSTICK_BATCH)
        peaks.append(2 * MATMUL**3 / seconds(lambda: torch.mm(left, right), 6) / 1e9)
        for kind, phases in kinds.items():
            rows[kind].append(phases.turn())
    found: dict[str, Any] = {"yardstick_s_per_kimg": statistics.median(yard) * 1e3}
    peak = max(peaks)
    found["peak_gflops"] = peak
    for kind, phases in kinds.items():
        whole = [sum(row.values()) / BATCH for row in rows[kind]]
        found[f"over_dcgan_64{kind}"] = statistics.median(
            mine / theirs for mine, theirs in zip(whole, yard, strict=True)
        )
        found[f"s_per_kimg_64{kind}"] = statistics.median(whole) * 1e3
        found[f"peak_fraction{kind}"] = fractions(phases, rows[kind], peak)
        found[f"phase_seconds{kind}"] = {
            name: round(median(rows[kind], name), 4) for name in rows[kind][0]
        }
    for kind in ("", "_economical"):
        phases = Phases(128, kind)
        large = [sum(phases.turn().values()) / BATCH for _ in range(large_turns)]
        found[f"s_per_kimg_128{kind}"] = statistics.median(large) * 1e3
    return found


def fractions(phases: Phases, rows: list[dict[str, float]], peak: float) -> dict[str, float]:
    """Return the fraction of the peak for each phase and for the whole step."""
    due = {"r1": ALL, "path_length": PATHS}
    work = {name: flops / due.get(name, 1) for name, flops in phases.work.items()}
    times = {name: median(rows, name) for name in rows[0]}
    found = {name: round(work[name] / times[name] / peak, 3) for name in PHASES if name in times}
    found["all"] = round(sum(work.values()) / sum(times.values()) / peak, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--large-turns", type=int, default=1, help="at 128 px")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="leave out 256 px")
    parser.add_argument("--memory-only", action="store_true", help="GB of a step at 256 px")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    torch.manual_seed(0)
    retain_freed_memory()  # as in the trainer; without effect on the reference
    if known.memory_only:
        print(train_256())
        return
    found = measure(known.turns, known.large_turns)
    if not known.no_memory:
        found["peak_gb_256"] = peak_gb(known.threads)
    print(f"StyleGAN2, batch {BATCH}, {known.threads} threads, medians of {known.turns} turns")
    for name, value in found.items():
        print(f"  {name:28s} {value:.4g}" if isinstance(value, float) else f"  {name:28s} {value}")
    if known.json:
        rounded = {n: round(v, 4) if isinstance(v, float) else v for n, v in found.items()}
        print(json.dumps(rounded))


if __name__ == "__main__":
    main()

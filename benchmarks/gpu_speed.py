"""Speed of steps for `benchmarks/gpu.py`: time, memory, synchronisations and kernels."""

from __future__ import annotations

import math
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_steps import TINY, Training, new_training
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from training.machine.determinism import determinism

PROJECT = Path(__file__).resolve().parents[1]
PLAIN = 1
"""Number of steps before a plain step, in which no penalty with an interval is due."""
_LEAST_STEPS = 8
_PROFILED = 3
_TOP = 8
_WIDTH = 80
_GIGA = 1e9


def synchronize(device: torch.device) -> None:
    """Wait for the work of `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cycle_length(training: Training) -> int:
    """Return the number of steps after which the due penalties repeat, at least `_LEAST_STEPS`."""
    loss = training.config.loss
    intervals = [loss.interval] if loss.r1 or loss.r2 or loss.gp or loss.dragan else [1]
    intervals += [loss.path_interval] if loss.path_length else []
    length = math.lcm(*intervals)
    return length * math.ceil(_LEAST_STEPS / length)


def run_steps(training: Training, count: int, first: int = 0) -> float:
    """Return the seconds of `count` steps, the first of which has `first` steps before it."""
    training.state.steps = first
    synchronize(training.device)
    start = time.perf_counter()
    for _ in range(count):
        training.step([training.batch])
    synchronize(training.device)
    return time.perf_counter() - start


def project_line() -> str:
    """Return the innermost line of this project's packages on the stack, as `file:line`."""
    frames = traceback.extract_stack()
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_relative_to(PROJECT / "training"):
            return f"{path.relative_to(PROJECT)}:{frame.lineno}"
    return f"{frames[0].filename}:{frames[0].lineno}"


class ReadNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the reads of single numbers from tensors by line. On a GPU, those of tensors that are
    there would wait for its work; others, like a random number of the CPU, would not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.lines[project_line()] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def warned_synchronizations() -> Iterator[Counter[str]]:
    """Count the synchronisations of CUDA in a `with` block, by line."""
    lines: Counter[str] = Counter()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            lines[project_line()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode("warn")
        lines.clear()  # the mode warns about itself
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")


def synchronizations(training: Training) -> dict[str, int]:
    """Return how often a plain step waits for the GPU, by `file:line`; on the CPU, the reads of
    `ReadNumbers`."""
    run_steps(training, 1, PLAIN)
    training.state.steps = PLAIN
    if training.device.type == "cuda":
        with warned_synchronizations() as lines:
            training.step([training.batch])
        return dict(lines.most_common())
    with ReadNumbers() as mode:
        training.step([training.batch])
    return dict(mode.lines.most_common())


def kernel_times(training: Training) -> dict[str, Any]:
    """Return what the device does in a plain step: milliseconds of kernels, their number, the
    fraction of the time of unprofiled steps that they take (on the CPU: of operations), and those
    that take longest."""
    wall = run_steps(training, _PROFILED, PLAIN) / _PROFILED
    cuda = training.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        run_steps(training, _PROFILED, PLAIN)
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    events = [
        event
        for event in seen.events() or ()
        if event.device_type == kind and not event.is_user_annotation
    ]
    busy, last = 0.0, -math.inf  # microseconds; kernels of several streams may overlap
    names: Counter[str] = Counter()
    for event in sorted(events, key=lambda event: event.time_range.start):
        start, end = event.time_range.start, event.time_range.end
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
        names[event.name[:_WIDTH]] += end - start if cuda else event.self_cpu_time_total
    step = busy / 1e6 / _PROFILED
    return {
        "kernel_ms_per_step": round(step * 1e3, 3),
        "kernels_per_step": len(events) // _PROFILED,
        "utilization": round(min(1.0, step / wall), 3),
        "top_kernels_ms": {n: round(t / 1e3 / _PROFILED, 3) for n, t in names.most_common(_TOP)},
    }


def measure_speed(
    preset: str, overrides: Mapping[str, str], device: str, seconds: float
) -> dict[str, Any]:
    """Return the speed of a preset's steps, measured for about `seconds` after a warm-up: whole
    cycles, which include every penalty as often as a run does."""
    start = time.perf_counter()
    training = new_training(preset, overrides, device)
    with determinism(False, training.device):
        run_steps(training, 1)
        first, cycle = time.perf_counter() - start, cycle_length(training)
        run_steps(training, cycle)
        if training.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        while not times or sum(times) < seconds:
            times.append(run_steps(training, cycle))
        found: dict[str, Any] = {
            "s_per_kimg": round(min(times) / (cycle * training.config.batch) * 1000, 4),
            "slowest_s_per_kimg": round(max(times) / (cycle * training.config.batch) * 1000, 4),
            "batch": training.config.batch, "first_step_s": round(first, 2), "peak_gb": None,
        }  # fmt: skip
        if training.device.type == "cuda":
            found["peak_gb"] = round(torch.cuda.max_memory_allocated() / _GIGA, 2)
        found |= kernel_times(training)
        found["synchronizations"] = synchronizations(training)
    return found


def job_speed(preset: str, dry: bool, **overrides: str) -> dict[str, Any]:
    """Seconds per kimg, peak memory, GPU utilisation, synchronisations and top kernels."""
    tiny = TINY[preset] if dry else {}
    found = measure_speed(preset, tiny | overrides, "cpu" if dry else "cuda", 0.0 if dry else 6.0)
    return {**found, "problems": []}


def graph_differences(preset: str, overrides: Mapping[str, str], steps: int) -> list[str]:
    """Return the names of the weights of both networks and the average that differ after so many
    steps with and without CUDA graphs."""
    states = []
    with determinism(True, torch.device("cuda")):
        for graphs in ("true", "false"):
            training = new_training(preset, {**overrides, "cuda_graphs": graphs}, "cuda")
            run_steps(training, steps)
            networks = (training.state.generator, training.state.discriminator)
            states.append({
                f"{kind}.{name}": value
                for kind, network in zip(("generator", "discriminator"), networks, strict=True)
                for name, value in network.state_dict().items()
            })  # fmt: skip
    first, second = states
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


def job_graphs(preset: str, dry: bool, **overrides: str) -> dict[str, Any]:
    """Speed of steps as CUDA graphs, and weights that differ from those of plain steps. There are
    no graphs on a CPU, so no dry run."""
    assert not dry
    found = measure_speed(preset, {**overrides, "cuda_graphs": "true"}, "cuda", 6.0)
    differing = graph_differences(preset, overrides, 3 * _LEAST_STEPS)
    return {**found, "problems": [f"differs from a plain step: {name}" for name in differing]}

"""Forecasts of time, memory, disk and cost, before a run starts and after its first steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.contract import format_bytes, format_duration
from training.config import Config
from training.networks import ImageShape
from training.optimizer import optimizers
from training.options.algorithm import OptimizerOptions
from training.planning.placement import KeptImages
from training.state import State
from training.streaming.dataset import ShardDataset

_TENSOR_BYTES, _CHECKPOINT_BYTES = 320, 4096
"""Bytes in a file per tensor besides its values, and per file."""
_MANY = 1 << 40
FORECAST_STEPS = 4
"""Minimum number of steps for a speed measurement; one step before them warms up."""
_LONG_SECONDS = 30.0
_TIMED_SECONDS = 3.0


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(weight.numel() for weight in network.parameters())


def checkpoint_bytes(state: State, config: Config, shape: ImageShape) -> int:
    """Estimate the size of a checkpoint of `state` after its optimisers have taken a step, to
    within a few percent, without the history of the run, which grows."""
    sizes = [
        tensor.numel() * tensor.element_size()
        for network in state.networks.values()
        for tensor in network.state_dict().values()
        if isinstance(tensor, torch.Tensor)
    ]
    for networks, options in zip(
        (state.g_networks, state.d_networks), optimizers(config), strict=True
    ):
        weights = [4 * one.numel() for network in networks.values() for one in network.parameters()]
        sizes += [size for size in weights for _ in range(moments(options))]
        if options.name == "adam":
            sizes += [4] * len(weights)  # the step counters
    if config.replay.size:
        pixels = config.method.sets * shape.channels * shape.height * shape.width
        sizes.append(config.replay.size * (2 * pixels + 8))
    return sum(sizes) + _TENSOR_BYTES * len(sizes) + _CHECKPOINT_BYTES


def moments(options: OptimizerOptions) -> int:
    """Return how many values an optimiser stores per weight."""
    if options.name == "adam":
        return 2
    return int(options.name == "rmsprop") + int(options.beta1 > 0)


def cost(seconds: float, price_per_hour: float) -> str:
    """Return the cost of a time, in the currency of the price."""
    return f"{seconds / 3600 * price_per_hour:.2f}"


@dataclass(frozen=True)
class Course:
    """How far a run gets, and what ends it.

    `kimg` thousand images of the `left` ones until `total_kimg`, in `seconds`, at `price_per_hour`.
    `limit` names the option that ends the run: total_kimg or max_hours.
    """

    seconds_per_kimg: float
    kimg: float
    left: float
    seconds: float
    max_hours: float
    price_per_hour: float

    @property
    def limit(self) -> str:
        return "max_hours" if self.kimg < self.left else "total_kimg"

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.price_per_hour

    def text(self) -> str:
        """Return the forecast in one line."""
        price = f", cost {self.cost:.2f}" if self.price_per_hour else ""
        took = f"forecast: {self.seconds_per_kimg:.3g} s/kimg, {format_duration(self.seconds)} for"
        if self.limit == "total_kimg":
            return f"{took} {self.left:g} kimg{price}"
        whole = format_duration(self.left * self.seconds_per_kimg)
        return (
            f"{took} {float(f'{self.kimg:.3g}'):g} of {self.left:g} kimg{price}; max_hours "
            f"{self.max_hours:g} ends the run (all would take {whole})"
        )


def plan_course(
    seconds_per_kimg: float, left: float, max_hours: float, used: float, price_per_hour: float
) -> Course:
    """Forecast a run that has `left` thousand images to train.

    Args:
        seconds_per_kimg: as measured.
        left: thousand images until `total_kimg`, 0 or more.
        max_hours: the limit of the command; 0: none.
        used: seconds that have passed before the first step.
        price_per_hour: price of the machine.
    """
    whole = left * seconds_per_kimg
    limit = max_hours * 3600 or math.inf
    room = max(0.0, limit - used)
    if whole <= room:
        return Course(seconds_per_kimg, left, left, whole, max_hours, price_per_hour)
    kimg = min(left, room / seconds_per_kimg)
    return Course(seconds_per_kimg, kimg, left, limit, max_hours, price_per_hour)


def lazy_cycle(config: Config) -> int:
    """Return the number of steps after which every periodic action has happened once."""
    loss, cycle = config.loss, 1
    if loss.gp or loss.dragan or loss.r1 or loss.r2:
        cycle = loss.interval
    cycle = math.lcm(cycle, loss.path_interval) if loss.path_length else cycle
    return cycle * max(1, config.blocks.cycle)


def is_timed(config: Config, steps: int, seconds: float) -> bool:
    """Return True if this many steps suffice to measure a speed: whole cycles of periodic
    actions, unless that takes too long."""
    if steps < FORECAST_STEPS:
        return False
    return steps % lazy_cycle(config) == 0 or seconds >= _LONG_SECONDS


def time_steps(
    step: Callable[[], object], config: Config, device: torch.device,
    agree: Callable[[bool], bool] = bool,
) -> float:  # fmt: skip
    """Take steps of `config` until their speed is known, and return the seconds per kimg; the first
    one warms up. `agree` says whether all processes stop, from whether this one would."""
    start, steps = 0.0, -1
    while True:
        step()
        _wait_for(device)
        steps += 1
        if steps == 0:
            start = time.monotonic()
        elapsed = time.monotonic() - start
        if agree(is_timed(config, steps, elapsed) and elapsed >= _TIMED_SECONDS):
            return elapsed / (steps * config.batch * config.n_critic) * 1000


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run. `parameters` are the numbers of weights of its networks by name.
    `memory` is in bytes on the training device without decoded samples,
    which are in `kept`, `available` the memory of the device (None: unknown); `checkpoint` is the
    size of one, `cache` the limit for fetched shards, `free` the free disk space."""

    parameters: dict[str, int]
    memory: int
    kept: KeptImages
    available: int | None
    checkpoint: int
    cache: int
    free: int

    def lines(self, device: str) -> list[str]:
        """Format parameter counts and memory."""
        there = "" if self.available is None else f" of {format_bytes(self.available)} available"
        return [
            ", ".join(
                f"{name.replace('_', ' ')} {count / 1e6:.2f} M"
                for name, count in self.parameters.items()
            )
            + " parameters",
            f"memory: about {format_bytes(self.memory)} for training and "
            f"{self.kept.text(device)}{there}",
        ]

    def disk_line(self, config: Config, source: ShardDataset, until: float) -> str:
        """Format the disk space that a run needs until it has seen `until` thousand images."""
        taken = disk_bytes(config, source, self.checkpoint, until)
        cached = f", fetched shards up to {format_bytes(self.cache)}" if self.cache else ""
        return (
            f"disk: checkpoints and samples up to {format_bytes(taken)}{cached}; "
            f"{format_bytes(self.free)} free"
        )


def disk_bytes(config: Config, source: ShardDataset, checkpoint: int, until: float) -> int:
    """Return the maximum size of a run's checkpoints (plus one that is being written, plus the
    best one) and grids after `until` thousand images."""
    grids = int(min(until / config.record.sample_kimg, _MANY)) + 2
    grid = config.record.grid * source.height * source.width * source.channels
    best = 0 < config.evaluate.kimg <= until
    return (config.record.keep + 1 + best) * checkpoint + grids * grid

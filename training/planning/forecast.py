"""What a run will take, said before it begins and once its first steps are timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.config import Config
from training.data import Source
from training.monitoring.console import clock
from training.state import State


def parameters(network: nn.Module) -> int:
    """The number of trained weights."""
    return sum(weight.numel() for weight in network.parameters())


def state_bytes(state: State) -> int:
    """About how large a checkpoint of `state` is: weights, average, two moments of Adam."""
    size = 0
    for network, optimizer in (
        (state.generator, state.g_optimizer),
        (state.discriminator, state.d_optimizer),
    ):
        moments = 2 if isinstance(optimizer, torch.optim.Adam) else 1
        size += 4 * parameters(network) * (1 + moments)
    return size + 4 * parameters(state.average)


def cost(seconds: float, price_per_hour: float) -> str:
    """What so many seconds cost, in the currency of the price."""
    return f"{seconds / 3600 * price_per_hour:.2f}"


def pace(seconds_per_kimg: float, kimg: float, price_per_hour: float) -> str:
    """The forecast of the time, and of the cost where there is a price."""
    seconds = kimg * seconds_per_kimg
    price = f", cost {cost(seconds, price_per_hour)}" if price_per_hour else ""
    return f"forecast: {seconds_per_kimg:.3g} s/kimg, {clock(seconds)} for {kimg:g} kimg{price}"


def byte_text(size: float) -> str:
    """Bytes as `12 MB`, `3.4 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


@dataclass(frozen=True)
class Forecast:
    """What a run takes. `memory` is bytes on the training device, `images` those of the decoded
    samples in main memory, `available` what there is on the device (None: unknown); `disk` what
    checkpoints and samples take at most, `cache` the bound for fetched shards, `free` the disk."""

    g_parameters: int
    d_parameters: int
    memory: int
    images: int
    available: int | None
    disk: int
    cache: int
    free: int

    def lines(self) -> list[str]:
        there = "" if self.available is None else f" of {byte_text(self.available)} available"
        cached = f", fetched shards up to {byte_text(self.cache)}" if self.cache else ""
        return [
            f"generator {self.g_parameters / 1e6:.2f} M, discriminator "
            f"{self.d_parameters / 1e6:.2f} M parameters",
            f"memory: about {byte_text(self.memory)} for training and up to "
            f"{byte_text(self.images)} for decoded images{there}",
            f"disk: checkpoints and samples up to {byte_text(self.disk)}{cached}; "
            f"{byte_text(self.free)} free",
        ]


def disk_bytes(config: Config, source: Source, checkpoint: int) -> int:
    """The most that a run's checkpoints (one more while it is written, one more that was best) and
    grids take."""
    grids = int(config.total_kimg / config.record.sample_kimg) + 2
    grid = config.record.grid * source.height * source.width * source.channels
    best = 0 < config.evaluate.kimg <= config.total_kimg
    return (config.record.keep + 1 + best) * checkpoint + grids * grid

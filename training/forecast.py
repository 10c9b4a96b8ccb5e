"""What a run will take, said before it begins and corrected after its first steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.console import clock
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


@dataclass(frozen=True)
class Forecast:
    """`seconds_per_kimg` None while nothing has been timed."""

    g_parameters: int
    d_parameters: int
    checkpoint_bytes: int
    kept: int
    kimg_left: float
    seconds_per_kimg: float | None = None

    def sizes(self) -> str:
        disk = self.checkpoint_bytes * (self.kept + 1)
        return (
            f"generator {self.g_parameters / 1e6:.2f} M, discriminator "
            f"{self.d_parameters / 1e6:.2f} M parameters; "
            f"checkpoints take up to {disk / 1e6:.0f} MB"
        )

    def time(self) -> str:
        assert self.seconds_per_kimg is not None
        left = clock(self.kimg_left * self.seconds_per_kimg)
        return f"forecast: {self.seconds_per_kimg:.1f} s/kimg, {left} for {self.kimg_left:g} kimg"

"""The moving average of the generator (Karras et al. 2018; half-life in images as in 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.config import Config
from training.optimizer import burn_in_value

_COPIED = (
    "._u", "._v", ".w_avg", ".magnitude_ema", ".noise_const", ".resample_filter", ".up_filter",
    ".down_filter", ".freqs", ".phases", ".transform",
)  # fmt: skip


def ema_decay(half_life_kimg: float, ramp_up: float, seen: int, batch: int) -> float:
    """Return the decay of the average for a step of `batch` images.

    0.5^(batch / half-life); with a ramp, the half-life is at most `ramp_up` · `seen`, so the
    initial random weights are soon forgotten.
    """
    half_life = half_life_kimg * 1000
    if ramp_up:
        half_life = min(half_life, seen * ramp_up)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


def step_decay(config: Config, seen: int, images: int) -> float:
    """Return the decay of the average for a step of this many images.

    The average soon forgets random initial weights, but not those of `init_from`, which are an
    average already.
    """
    half_life = config.ema.half_life_kimg
    if config.init_from:
        return ema_decay(half_life, 0.0, seen, images)
    if config.burn_in.ema:
        half_life *= burn_in_value(config.burn_in, 0.0, 1.0, seen)
    return ema_decay(half_life, config.ema.ramp_up, seen, images)


class MovingAverage:
    """`average` as the moving average of `network`, including running statistics.

    Counters, constants, what is an average already (the mean w of a style generator), and the
    singular vectors of spectral normalisation (whose length must not change) are copied. Both
    networks must keep their tensors: they are looked up once.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        self._old: list[Tensor] = list(average.parameters())
        self._new: list[Tensor] = list(network.parameters())
        self._targets, self._sources = list[Tensor](), list[Tensor]()
        for (name, target), source in zip(average.named_buffers(), network.buffers(), strict=True):
            is_averaged = target.is_floating_point() and not name.endswith(_COPIED)
            (self._old if is_averaged else self._targets).append(target)
            (self._new if is_averaged else self._sources).append(source)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average ← decay · average + (1 − decay) · network."""
        if self._targets:
            torch._foreach_copy_(self._targets, self._sources)
        get_ema_multi_avg_fn(decay)(self._old, self._new, None)  # type: ignore[no-untyped-call]

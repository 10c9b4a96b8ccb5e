"""The moving average against its closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training import ema


def test_decay_halves_after_the_half_life() -> None:
    keep = ema.ema_decay(half_life_kimg=2.0, ramp_up=0, seen=10**9, batch=50)
    assert keep ** (2000 / 50) == pytest.approx(0.5)


def test_ramp_bounds_the_half_life_by_what_was_seen() -> None:
    # Karras 2020b: half-life = min(half-life, seen · ramp)
    assert ema.ema_decay(10.0, 0.05, seen=1000, batch=50) == pytest.approx(0.5)
    assert ema.ema_decay(10.0, 0.05, seen=10**7, batch=50) == ema.ema_decay(10.0, 0, 10**7, 50)
    assert ema.ema_decay(10.0, 0.05, seen=0, batch=50) == 0


def test_updates_equal_the_weighted_sum_of_all_earlier_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(network)
    moving = ema.MovingAverage(average, network)
    start = average[0].weight.detach().double().clone()
    keep, steps = 0.9, 7
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        with torch.no_grad():
            network[0].weight.copy_(torch.randn(4, 3))
            network[1].running_mean.copy_(torch.randn(4))
        network[1].num_batches_tracked += 1
        seen.append(network[0].weight.detach().double().clone())
        moving.update(keep)
    expected = keep**steps * start
    for step, weight in enumerate(seen):
        expected = expected + (1 - keep) * keep ** (steps - 1 - step) * weight
    torch.testing.assert_close(average[0].weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert int(average[1].num_batches_tracked) == steps  # counters are copied, not averaged
    assert not torch.equal(average[1].running_mean, network[1].running_mean)

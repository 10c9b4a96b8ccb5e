"""The mean of each value over the steps, and over the processes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from training.machine.distributed import Distributed
from training.monitoring.meter import Meter


class BesideAnother(Distributed):
    """The first of two processes; the sums of the other one, weighted, are 0.5 each."""

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor += 0.5


def test_means_are_over_the_steps_that_told_a_value() -> None:
    meter = Meter()
    meter.add({"loss_d": torch.tensor(1.0), "loss_g": torch.tensor(4.0)})
    meter.add({"loss_d": torch.tensor(3.0)})
    assert meter.means() == {"loss_d": 2.0, "loss_g": 4.0}
    assert meter.means() == {}


def test_processes_are_summed_by_weight() -> None:
    meter = Meter()
    meter.add({"loss_d": torch.tensor(1.0), "loss_g": torch.tensor(4.0)})
    meter.merge(BesideAnother(world_size=2), 0.25)
    assert meter.means() == pytest.approx({"loss_d": 0.75, "loss_g": 1.5})

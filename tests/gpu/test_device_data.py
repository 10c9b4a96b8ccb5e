"""Batches on a CUDA device: those of the CPU, whether copied or gathered, without waiting."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from gpu_speed import warned_synchronizations

from tests.helpers.small_shards import SmallShards
from training.config import Config, DataOptions
from training.data import Batch, Loader
from training.streaming.dataset import open_shard_dataset
from training.streaming.device_samples import Placement

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("on_device", [False, True])
def test_batches_are_those_of_the_cpu(tmp_path: Path, on_device: bool) -> None:
    shards = SmallShards(tmp_path, labels=("a", "b"))
    config = Config(batch=7, data=DataOptions(mirror=True))
    source = open_shard_dataset(shards.manifest, 0)

    def take(placement: Placement) -> list[Batch]:
        with Loader(source, config, placement=placement) as loader:
            return list(itertools.islice(loader, 60))

    with warned_synchronizations() as lines:
        found = take(Placement(torch.device("cuda"), on_device))
    assert not {line for line in lines if "streaming/device_samples" in line or "data.py" in line}
    for batch, other in zip(found, take(Placement()), strict=True):
        assert torch.equal(batch.images.cpu(), other.images)
        assert torch.equal(batch.labels.cpu(), other.labels)

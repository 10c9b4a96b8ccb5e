"""Small shards to train on, and the trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.shard_server import ShardServer
from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import Fit, fit_here


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_shards(tmp_path: Path) -> Callable[..., SmallShards]:
    """Makes `SmallShards` under the test's folder."""
    return lambda **options: SmallShards(tmp_path / "set", **options)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`fit_here` in the folder of the run `run`, `runs/NAME` of some folder, where it stays."""

    def train(run: Path, shards: SmallShards | str, *options: str) -> int:
        run.parents[1].mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(run.parents[1])
        return fit_here(run.name, shards, *options)

    return train


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Runs the command in the test's folder."""
    return Fit(tmp_path / "work")


@pytest.fixture
def serve() -> Iterator[Callable[[Path], ShardServer]]:
    """Serves folders until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda folder: stack.enter_context(ShardServer(folder))

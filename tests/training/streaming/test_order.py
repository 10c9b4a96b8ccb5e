"""The order of samples: each once an epoch, few shards at a time, fixed by the seed."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from training.streaming.order import epoch_order, rank_slice


@pytest.mark.parametrize("window", [1, 2, 4, 100])
@pytest.mark.parametrize("sizes", [[5], [7, 1, 3, 9, 2, 4], [0, 3, 0, 2], [100] * 12])
def test_every_sample_comes_once_and_few_shards_are_open(sizes: list[int], window: int) -> None:
    order = epoch_order(3, 0, sizes, window)
    seen = list(zip(order.shard.tolist(), order.member.tolist(), strict=True))
    assert sorted(seen) == [(s, m) for s, size in enumerate(sizes) for m in range(size)]
    first = {shard: place for place, (shard, _) in reversed(list(enumerate(seen)))}
    last = {shard: place for place, (shard, _) in enumerate(seen)}
    assert {s: order.last_use[s] for s in last} == last
    for place in range(len(seen)):
        assert sum(first[s] <= place <= last[s] for s in last) <= window + 1


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def text(seed: int, epoch: int) -> str:
        order = epoch_order(seed, epoch, [50, 50], 2)
        return repr((order.shard.tolist(), order.member.tolist(), order.mirror.tolist()))

    assert text(1, 2) == text(1, 2)
    assert len({text(seed, epoch) for seed, epoch in itertools.product(range(3), range(3))}) == 9
    program = (
        "from training.streaming.order import epoch_order as e; o = e(1, 2, [50, 50], 2);"
        "print(repr((o.shard.tolist(), o.member.tolist(), o.mirror.tolist())))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout.strip() == text(1, 2)  # in another process too: no hash() in it


def test_samples_of_a_shard_spread_over_the_whole_window() -> None:
    order = epoch_order(0, 0, [200] * 8, 4)
    places = np.flatnonzero(order.shard == order.shards[3])
    assert places.max() - places.min() > 3 * 200  # nearly window shards long
    flips = order.mirror.mean()
    assert 0.45 < flips < 0.55


@pytest.mark.parametrize(("batch", "world"), [(8, 2), (7, 3), (3, 3), (100, 7)])
def test_parts_of_a_batch_make_the_batch(batch: int, world: int) -> None:
    parts = [range(batch)[rank_slice(batch, rank, world)] for rank in range(world)]
    assert [place for part in parts for place in part] == list(range(batch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1

"""The order of samples: a pure function of (seed, epoch, sizes of the shards).

Shards are opened in random order, and a sample of the k-th shard occurs between the times k and k +
window: at most `window` shards are open at any time, they overlap (none ends where the next
starts), and every sample occurs once per epoch. Position i of the run is sample i mod n of epoch i
div n, so the position in the data is one number, images seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.seeds import derive


@dataclass(frozen=True)
class Epoch:
    """The samples of one epoch in order.

    `shard` and `member` identify a sample, `mirror` says whether to flip it: one entry per sample.
    `shards` is the order in which shards start, `turn` the place of each in it, `last_use` the
    position of its last sample (-1 if it has none).
    """

    shard: NDArray[np.int32]
    member: NDArray[np.int32]
    mirror: NDArray[np.bool_]
    shards: NDArray[np.int64]
    turn: NDArray[np.int64]
    last_use: NDArray[np.int64]


def epoch_order(seed: int, epoch: int, sizes: Sequence[int], window: int) -> Epoch:
    """Return the order of `epoch` over shards of `sizes` samples, with `window` shards mixed at
    a time."""
    random = np.random.Generator(np.random.PCG64(derive(seed, "order", epoch)))
    shards = random.permutation(len(sizes))
    counts = np.asarray(sizes, dtype=np.int64)
    moment = np.repeat(np.arange(len(sizes)), counts[shards])
    shard = np.repeat(shards, counts[shards]).astype(np.int32)
    starts = np.cumsum(counts[shards]) - counts[shards]
    member = (np.arange(len(shard)) - np.repeat(starts, counts[shards])).astype(np.int32)
    by_time = np.argsort(moment + random.random(len(shard)) * window, kind="stable")
    shard, member = shard[by_time], member[by_time]
    last_use = np.full(len(sizes), -1, dtype=np.int64)
    last_use[shard] = np.arange(len(shard))  # later positions overwrite earlier ones
    mirror = random.random(len(shard)) < 0.5
    return Epoch(shard, member, mirror, shards, np.argsort(shards), last_use)


def label_mask(seed: int, samples: int, labelled: int) -> NDArray[np.bool_]:
    """Return which of `samples` show their label if only `labelled` of them should (0: all)."""
    if not labelled:
        return np.ones(samples, dtype=np.bool_)
    random = np.random.Generator(np.random.PCG64(derive(seed, "labelled")))
    return random.permutation(samples) < labelled


def rank_slice(batch: int, rank: int, world: int) -> slice:
    """Return the part of a global batch for `rank`: the same samples for any world size."""
    return slice(rank * batch // world, (rank + 1) * batch // world)

"""Samples of one epoch after another, by their place in the order."""

from __future__ import annotations

import queue
from collections.abc import Callable
from itertools import chain

from pipeline.contract import UserError
from training.config import DataOptions
from training.streaming.decode import Pixels
from training.streaming.order import Epoch, epoch_order
from training.streaming.samples import SampleCache
from training.streaming.shards import DamagedSample, DamagedShard, ShardOpener

_MOST_WARNINGS = 100
"""Maximum number of damaged shards and samples that are reported."""


class EpochReader:
    """Reads samples by epoch and place, opens the shards that they need and closes those that no
    later one needs. For one thread.

    Args:
        seed: of the order.
        advice: the end of the message about a damaged shard.
        is_needed: whether a shard has samples that will have to be read.

    `warnings` takes sentences that the user should read.
    """

    def __init__(
        self,
        samples: SampleCache,
        opener: ShardOpener,
        options: DataOptions,
        seed: int,
        advice: str,
        is_needed: Callable[[int], bool],
    ) -> None:
        self._samples, self._opener, self._options = samples, opener, options
        self._seed, self._advice, self._is_needed = seed, advice, is_needed
        self.total = sum(samples.sizes)
        self._epochs: dict[int, Epoch] = {}
        self._reached = (-1, -1)
        self._damaged: set[int] = set()
        self._damaged_samples: set[tuple[int, int]] = set()
        self._open_since: dict[int, int] = {}  # shard → the epoch that it was opened in
        self.warnings: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read_or_replace(self, number: int, place: int, out: Pixels) -> tuple[int, int]:
        """Read the sample at `place` of epoch `number` into `out`; return its number and label.

        If it or its shard is damaged and may be skipped, this is the nearest sample before it in
        the epoch (else after it) that is not. So the position stays one number.

        Raises:
            UserError: all shards are damaged.
            DamagedShard: it is damaged, and may not be skipped.
        """
        epoch, last = self.epoch(number), ""
        for other in chain(range(place, -1, -1), range(place + 1, self.total)):
            shard, member = int(epoch.shard[other]), int(epoch.member[other])
            if shard in self._damaged or (shard, member) in self._damaged_samples:
                continue
            if shard not in self._open_since:
                self._release_finished_shards(number, place)
                self._prefetch(number, shard)
                self._open_since[shard] = number
            try:
                return self._samples.read(shard, member, out)
            except DamagedShard as error:
                if not self._options.skip_corrupt:
                    raise DamagedShard(f"{error}{self._advice}") from None
                if isinstance(error, DamagedSample):
                    self._damaged_samples.add((shard, member))
                else:
                    self._damaged.add(shard)
                if len(self._damaged) + len(self._damaged_samples) <= _MOST_WARNINGS:
                    self.warnings.put(f"{error}; skipped, other samples take its place")
                last = f"; the last one: {error}"
        raise UserError(f"all shards are damaged{last}")

    def _release_finished_shards(self, number: int, place: int) -> None:
        """Close the shards that no sample from `place` on needs (until the next epoch)."""
        last_use = self.epoch(number).last_use
        for shard, since in list(self._open_since.items()):
            if since < number or last_use[shard] < place:
                self._samples.shards.release(shard)
                del self._open_since[shard]

    def _prefetch(self, number: int, shard: int) -> None:
        """When the epoch comes to a new shard, fetch the one after it."""
        epoch = self.epoch(number)
        here = (number, int(epoch.turn[shard]))
        if here <= self._reached:
            return
        self._reached = here
        turn = here[1] + 1
        if turn == len(epoch.shards):
            epoch, turn = self.epoch(number + 1), 0
        following = int(epoch.shards[turn])
        if following not in self._damaged and self._is_needed(following):
            self._opener.prefetch(following)

    def epoch(self, number: int) -> Epoch:
        """Return the order of epoch `number`."""
        if number not in self._epochs:
            order = epoch_order(self._seed, number, self._samples.sizes, self._options.window)
            near = {key: epoch for key, epoch in self._epochs.items() if key == number - 1}
            self._epochs = near | {number: order}
        return self._epochs[number]

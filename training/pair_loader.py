"""Batches of pairs from two sets of shards, and the choice between one set and two."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import torch

from training.config import Config
from training.data import Batch, Loader
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.seeds import derive
from training.streaming.dataset import ShardDataset
from training.streaming.device_samples import Placement
from training.streaming.openers import split_options


class PairLoader:
    """Batches of pairs of images, one of `source` and one of its second set, which have nothing to
    do with each other: each set has an order of its own, and the position in both is one number,
    images seen. The arguments are like those of `Loader`."""

    def __init__(
        self,
        source: ShardDataset,
        config: Config,
        seen: int = 0,
        ranks: Distributed = SINGLE_PROCESS,
        placement: Placement | None = None,
    ) -> None:
        assert source.second is not None
        places = (placement, placement.second) if placement else (None, None)
        seeds = config.seed, derive(config.seed, "second set")
        self._loaders: list[Loader] = []
        with ExitStack() as stack:
            for one, options, seed, place in zip(
                source.sets, split_options(source, config.data), seeds, places, strict=True
            ):
                loader = Loader(
                    one, replace(config, data=options, seed=seed), seen, ranks, placement=place
                )  # fmt: skip
                self._loaders.append(stack.enter_context(loader))
            self._close = stack.pop_all().close
        self.warnings: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        first, second = (next(loader) for loader in self._loaders)
        for loader in self._loaders:
            while not loader.warnings.empty():
                self.warnings.put(loader.warnings.get())
        return Batch(torch.cat([first.images, second.images], dim=1), first.labels)

    def __enter__(self) -> PairLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def open_loader(
    source: ShardDataset,
    config: Config,
    seen: int = 0,
    ranks: Distributed = SINGLE_PROCESS,
    placement: Placement | None = None,
) -> Loader | PairLoader:
    """Return the batches that a run learns from; the arguments are like those of `Loader`."""
    if source.second is None:
        return Loader(source, config, seen, ranks, placement=placement)
    return PairLoader(source, config, seen, ranks, placement)

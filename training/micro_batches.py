"""A batch as a step uses it: floats on the device, in pieces that fit into memory, with latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import Config
from training.data import Batch
from training.machine.distributed import Distributed
from training.objective import Stats
from training.streaming.order import rank_slice
from training.techniques.latents import draw_latents


class ToFloat:
    """uint8 images to float32 in [-1, 1] on the device, in memory that is used again.

    What `slot` gave last is overwritten by the next call with it: fresh memory for each batch
    costs ten times the arithmetic.
    """

    def __init__(self, device: torch.device, channels_last: bool) -> None:
        self._device = device
        self._form = torch.channels_last if channels_last else torch.contiguous_format
        self._buffers: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, slot: int = 0) -> Tensor:
        """Images uint8 (n, c, h, w) as float32."""
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.shape != images.shape:
            buffer = torch.empty(images.shape, device=self._device, memory_format=self._form)
            self._buffers[slot] = buffer
        moved = images.to(self._device, non_blocking=True)
        return buffer.copy_(moved).div_(127.5).sub_(1)


@dataclass
class MicroBatch:
    """A part of a batch that goes through the networks at once.

    `real` float32 (n, c, h, w) in [-1, 1], `labels` int64 (n,), `latents` (n, z_dim); `fake` with
    its graph, None where it is drawn again. `weight` is its share of the batch of all processes,
    `share` of the batch of this one.
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake: Tensor | None
    weight: float
    share: float


class MicroBatcher:
    """A batch in pieces of at most `micro_batch` images; `random` is what latents are drawn from:
    seeded alike in all processes."""

    def __init__(
        self, config: Config, z_dim: int, device: torch.device, ranks: Distributed
    ) -> None:
        self._config, self._z_dim, self._device, self._ranks = config, z_dim, device, ranks
        self._to_float = ToFloat(device, config.channels_last)
        self.random = torch.Generator(device=device)

    def __call__(self, batch: Batch) -> list[MicroBatch]:
        """The pieces, with latents, of which each process takes its part."""
        config, count = self._config, len(batch.images)
        every = draw_latents(config.latent, config.batch, self._z_dim, self.random, self._device)
        latents = every[rank_slice(config.batch, self._ranks.rank, self._ranks.world_size)]
        size = config.micro_batch or count
        pieces = []
        for slot, start in enumerate(range(0, count, size)):
            some = slice(start, min(start + size, count))
            real = self._to_float(batch.images[some], slot)
            labels = batch.labels[some].to(self._device)
            weight, share = len(real) / config.batch, len(real) / count
            pieces.append(MicroBatch(real, labels, latents[some], None, weight, share))
        return pieces


def accumulate_stats(facts: Stats, found: Stats, share: float) -> None:
    """Add what a piece tells, by its share of the batch, to the batch's facts."""
    for name, value in found.items():
        facts[name] = facts[name] + value * share if name in facts else value * share


def batch_std(images: Tensor) -> Tensor:
    """The standard deviation over the batch of images (n, c, h, w), mean over every fourth row and
    column: how much samples differ from each other. 0 where all are alike."""
    return images[:, :, ::4, ::4].float().std(dim=0, unbiased=False).mean()

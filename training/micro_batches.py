"""A batch in training: floats on the device, split into micro-batches, with latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.contract import UserError
from training.config import Config
from training.data import Batch
from training.loss_terms import Labels, Stats
from training.machine.device import to_device
from training.machine.distributed import Distributed
from training.streaming.order import rank_slice
from training.techniques import draw_latents


class ToFloat:
    """Convert uint8 images to float32 in [-1, 1] on the device, in reused memory.

    The next call with the same `slot` overwrites the result: new memory for each batch costs ten
    times the arithmetic.
    """

    def __init__(self, device: torch.device, channels_last: bool) -> None:
        self._device = device
        self._form = torch.channels_last if channels_last else torch.contiguous_format
        self._buffers: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, slot: int = 0) -> Tensor:
        """Return images uint8 (n, c, h, w) as float32."""
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.shape != images.shape:
            buffer = torch.empty(images.shape, device=self._device, memory_format=self._form)
            self._buffers[slot] = buffer
        moved = to_device(images, self._device)
        return buffer.copy_(moved).div_(127.5).sub_(1)


@dataclass
class MicroBatch:
    """A part of a batch that passes the networks at once.

    `real` float32 (n, c, h, w) in [-1, 1], `labels` int64 (n,), `latents` (n, z_dim), or the same
    images as `real` if they are translated; `fake` with its graph, and the labels of `real` and of
    it, or None if it is generated again. `weight` is its fraction of the global batch, `share` that
    of this process's batch.
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake: tuple[Tensor, Labels] | None
    weight: float
    share: float


class MicroBatcher:
    """Splits a batch into micro-batches of at most `micro_batch` images; latents are drawn from
    `random`, which is seeded equally in all processes.

    Raises:
        UserError: the processes would take different numbers of micro-batches, or parts of a
            sample.
    """

    def __init__(
        self, config: Config, z_dim: int, device: torch.device, ranks: Distributed
    ) -> None:
        processes, size = ranks.world_size, config.micro_batch or config.batch
        least, most = config.batch // processes, -(-config.batch // processes)
        packing = config.discriminator.packing
        if packing > 1 and config.batch % (packing * processes):
            raise UserError(
                "batch: each process's part must be a multiple of discriminator.packing"
            )
        if -(-least // size) != -(-most // size):
            raise UserError(
                f"micro_batch: {size}: processes with {least} and {most} images of a batch would "
                f"take different numbers of micro-batches; make batch a multiple of {processes}"
            )
        self._config, self._z_dim, self._device, self._ranks = config, z_dim, device, ranks
        self._to_float = ToFloat(device, config.channels_last)
        self.random = torch.Generator(device=device)

    def __call__(self, batch: Batch) -> list[MicroBatch]:
        """Return the micro-batches with latents, of which each process takes its slice."""
        config, count = self._config, len(batch.images)
        every = draw_latents(config.latent, config.batch, self._z_dim, self.random, self._device)
        latents = every[rank_slice(config.batch, self._ranks.rank, self._ranks.world_size)]
        size = config.micro_batch or count
        parts = []
        for slot, start in enumerate(range(0, count, size)):
            some = slice(start, min(start + size, count))
            real = self._to_float(batch.images[some], slot)
            labels = to_device(batch.labels[some], self._device)
            weight, share = len(real) / config.batch, len(real) / count
            inputs = real if config.method.sets > 1 else latents[some]
            parts.append(MicroBatch(real, labels, inputs, None, weight, share))
        return parts


def accumulate_stats(stats: Stats, new: Stats, share: float) -> None:
    """Add the stats of a micro-batch, weighted by its fraction, to those of the batch."""
    for name, value in new.items():
        stats[name] = stats[name] + value * share if name in stats else value * share


def batch_std(images: Tensor) -> Tensor:
    """Return the standard deviation over the batch of images (n, c, h, w), averaged over every
    fourth row and column: the variation among samples. 0 if all are equal."""
    return images[:, :, ::4, ::4].float().std(dim=0, unbiased=False).mean()

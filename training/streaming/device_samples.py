"""All samples of a dataset on the training device, from which batches are gathered there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import UserError, format_bytes
from training.streaming.sample_memory import SampleMemory


@dataclass(frozen=True)
class Placement:
    """The training `device` and where decoded samples are kept: all of them `on_device`, and in
    `memory` (None: if not on the device, in memory of this process within `data.memory_gb`);
    `second` is that of a second set."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_device: bool = False
    memory: SampleMemory | None = None
    second: Placement | None = None

    def close(self) -> None:
        """Release memory that is shared with other processes."""
        if self.second is not None:
            self.second.close()
        if self.memory is not None:
            self.memory.close()


LABEL, NUMBER, MIRROR, NEW = range(4)
"""Rows of a batch's integers: its labels, the numbers of its samples, 1 where they are mirrored,
and, from the start, the numbers of those that come to the device with this batch."""


class DeviceSamples:
    """The images of a dataset, uint8 (samples, height, width, channels) on `device`, by number.

    They come there with the batches that first contain them. `have` and `labels` are in main
    memory, and for the thread that plans batches: what it has marked is on the device for all
    batches that are gathered later, because they are gathered in the order in which they are
    planned.

    Raises:
        UserError: the device does not have the memory.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self.have: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.labels: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        try:
            self._images = torch.empty((count, *shape), dtype=torch.uint8, device=device)
        except RuntimeError:  # of which torch.OutOfMemoryError is one
            raise UserError(
                f"data.device_gb: {device.type} has no {format_bytes(count * int(np.prod(shape)))} "
                "for the decoded images; keep them in main memory with --data.device_gb 0"
            ) from None

    def gather(self, new: Tensor, integers: Tensor, mirror: bool) -> Tensor:
        """Store the `new` images and return those of a batch, uint8 (n, channels, height, width).

        Args:
            new: uint8 (k, height, width, channels) on the device.
            integers: (4, n) on the device, see `NUMBER`.
            mirror: whether some of the images are mirrored.
        """
        if len(new):
            self._images.index_copy_(0, integers[NEW, : len(new)], new)
        images = self._images.index_select(0, integers[NUMBER])
        if mirror:
            turned = integers[MIRROR].bool()[:, None, None, None]
            images = torch.where(turned, images.flip(2), images)
        return images.permute(0, 3, 1, 2)

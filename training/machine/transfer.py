"""Copies of batches from main memory to the training device."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_POLL = 0.5


class Event(Protocol):
    """A mark in the work of a device, like `torch.cuda.Event`."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...


class Transfer:
    """Copies tensors to `device`. To CUDA they are copied from pinned memory, and the program does
    not wait; memory that is read there is reused once an event has passed (`is_pinned`)."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_pinned = device, device.type == "cuda"

    def enter_thread(self) -> None:
        """Let this thread use `device`, and not the first one of the machine."""
        if self.is_pinned and self.device.index is not None:
            torch.cuda.set_device(self.device)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return new pinned memory to copy from."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def send(self, values: Tensor) -> Tensor:
        """Return `values` on the device: the same memory on the CPU."""
        if self.device.type == "cpu":  # asking for nothing takes as long as a small image
            return values
        return values.to(self.device, non_blocking=self.is_pinned)

    def event(self) -> Event:
        """Return an event of the device, on which a thread can wait without using a core."""
        return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


@dataclass
class BatchBuffer:
    """Main memory of one batch: `images` uint8 (n, height, width, channels) and `integers` int64
    (rows, n), as tensors and as arrays; `copied` has passed when the device has read both."""

    images: Tensor
    integers: Tensor
    pixels: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    copied: Event | None = field(default=None, compare=False)


class BatchBuffers:
    """Main memory for batches: `count` buffers in turn where `transfer` pins them, which takes as
    long as copying; else a new one for each batch, which it may keep.

    One thread takes and fills them (`take`), another one copies from them and then says so
    (`release`).
    """

    def __init__(
        self, transfer: Transfer, count: int, images: tuple[int, ...], integers: tuple[int, int]
    ) -> None:
        self._transfer, self._shapes = transfer, (images, integers)
        self._free: queue.SimpleQueue[BatchBuffer] = queue.SimpleQueue()
        for _ in range(count if transfer.is_pinned else 0):
            self._free.put(self._new())

    def take(self, stop: threading.Event) -> BatchBuffer | None:
        """Return a buffer that the device no longer reads; None after `stop`."""
        if not self._transfer.is_pinned:
            return self._new()
        while not stop.is_set():
            try:
                buffer = self._free.get(timeout=_POLL)
            except queue.Empty:
                continue
            if buffer.copied is not None:
                buffer.copied.synchronize()
            return buffer
        return None

    def release(self, buffer: BatchBuffer) -> None:
        """Let the buffer be filled again once the copies asked for so far are done."""
        if not self._transfer.is_pinned:
            return
        buffer.copied = buffer.copied or self._transfer.event()
        buffer.copied.record()
        self._free.put(buffer)

    def _new(self) -> BatchBuffer:
        if self._transfer.is_pinned:
            images, integers = (
                self._transfer.empty(shape, kind)
                for shape, kind in zip(self._shapes, (torch.uint8, torch.int64), strict=True)
            )
            return BatchBuffer(images, integers, images.numpy(), integers.numpy())
        pixels = np.empty(self._shapes[0], dtype=np.uint8)  # faster than PyTorch's
        numbers = np.empty(self._shapes[1], dtype=np.int64)
        return BatchBuffer(torch.from_numpy(pixels), torch.from_numpy(numbers), pixels, numbers)

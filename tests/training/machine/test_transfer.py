"""Buffers in main memory that a device reads later than the program asks it to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from training import data
from training.config import Config, DataOptions
from training.data import Loader
from training.machine.transfer import BatchBuffers, Transfer
from training.streaming.dataset import open_shard_dataset
from training.streaming.device_samples import Placement

CPU = torch.device("cpu")


class LateDevice(Transfer):
    """Copies as late as a device may: when an event is waited for, or at the end."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.is_pinned, self.lock = True, threading.Lock()
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.made: list[Tensor] = []

    def enter_thread(self) -> None:
        pass

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.made.append(torch.empty(shape, dtype=dtype))
        return self.made[-1]

    def send(self, values: Tensor) -> Tensor:
        found = torch.zeros_like(values)
        with self.lock:
            self.waiting.append((found, values))
        return found

    def event(self) -> LateEvent:
        return LateEvent(self)

    def work(self, count: int) -> None:
        with self.lock:
            done, self.waiting = self.waiting[:count], self.waiting[count:]
            for found, values in done:
                found.copy_(values)


class LateEvent:
    def __init__(self, device: LateDevice) -> None:
        self.device, self.before = device, list[Tensor]()

    def record(self) -> None:
        self.before = [found for found, _ in self.device.waiting]

    def synchronize(self) -> None:
        last = self.before[-1]
        places = [at for at, (found, _) in enumerate(self.device.waiting) if found is last]
        self.device.work(places[0] + 1 if places else 0)


def test_no_buffer_is_filled_before_the_device_has_read_it(
    small_shards: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_shard_dataset(small_shards(labels=("a", "b")).manifest, 0)
    config = Config(batch=7, data=DataOptions(mirror=True))
    with Loader(source, config) as loader:
        expected = list(itertools.islice(loader, 60))
    devices = []

    def late(device: torch.device) -> LateDevice:
        devices.append(LateDevice(device))
        return devices[-1]

    monkeypatch.setattr(data, "Transfer", late)
    with Loader(source, config, placement=Placement(CPU)) as loader:
        found = list(itertools.islice(loader, 60))
    (device,) = devices
    assert device.waiting  # the last batches are not there yet
    device.work(len(device.waiting))
    assert len(device.made) == 2 * 5  # images and labels: memory is reused
    for batch, other in zip(found, expected, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)


def test_a_thread_that_waits_for_a_buffer_can_be_stopped() -> None:
    buffers, stop = BatchBuffers(LateDevice(CPU), 1, (1, 2, 2, 3), (1, 1)), threading.Event()
    assert buffers.take(stop) is not None
    taken = []
    thread = threading.Thread(target=lambda: taken.append(buffers.take(stop)))
    thread.start()
    stop.set()
    thread.join(timeout=60)
    assert taken == [None]


def test_the_cpu_reads_batches_where_they_were_decoded() -> None:
    transfer = Transfer(CPU)
    buffers, stop = BatchBuffers(transfer, 2, (1, 2, 2, 3), (1, 1)), threading.Event()
    first = buffers.take(stop)
    assert first is not None
    assert transfer.send(first.images) is first.images
    buffers.release(first)
    second = buffers.take(stop)
    assert second is not None
    assert second.images.data_ptr() != first.images.data_ptr()

"""Where decoded samples are kept: on the training device, or in main memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipeline.contract import format_bytes
from training.config import DataOptions
from training.machine.distributed import Distributed
from training.streaming.dataset import ShardDataset
from training.streaming.device_samples import Placement
from training.streaming.openers import split_options
from training.streaming.sample_memory import GIGABYTE, open_shared_memory

_SPARE = 0.1
"""Fraction of a device's available memory that is left free when `data.device_gb` is `auto`."""


def device_image_bytes(
    options: DataOptions, size: int, device: torch.device, training: int, available: int | None
) -> int:
    """Return the bytes of decoded samples on the training device: `size`, those of all samples, or
    0.

    With `device_gb` `auto` that is if they fit into a GPU beside training; memory of other devices
    is main memory.

    Args:
        training: bytes that training needs on the device.
        available: memory of the device in bytes; None: unknown.
    """
    if options.device_gb == "auto":
        free = (1 - _SPARE) * available - training if available is not None else 0
        return size if device.type == "cuda" and size <= free else 0
    return size if size <= options.device_gb * GIGABYTE else 0


@dataclass(frozen=True)
class KeptImages:
    """Bytes of decoded samples: at most `in_memory` bytes of main memory, which `processes` share,
    and `on_device` bytes on the training device."""

    in_memory: int
    on_device: int = 0
    processes: int = 1

    def text(self, device: str) -> str:
        """Return what is kept where, as the end of a sentence."""
        shared = f", shared by {self.processes} processes" if self.processes > 1 else ""
        text = f"up to {format_bytes(self.in_memory)} for decoded images{shared}"
        if not self.on_device:
            return text
        on_device = f"{format_bytes(self.on_device)} for all decoded images on the {device} device"
        return f"{on_device}, {text} in main memory" if self.in_memory else on_device


def place_samples(
    source: ShardDataset, options: DataOptions, device: torch.device, ranks: Distributed,
    training: int, available: int | None,
) -> tuple[Placement, KeptImages, str]:  # fmt: skip
    """Decide where decoded samples are kept, those of both sets if there are two; all processes of
    the run call this.

    A single process that has them on the device keeps none in main memory. Several processes on a
    machine share one copy, and fill their devices from it.

    Returns:
        The place, its bytes, and a sentence for the user, or an empty text.
    """
    if source.second is not None:
        shared = split_options(source, options)
        alone = replace(source, second=None)
        first, one, note = place_samples(alone, shared[0], device, ranks, training, available)
        training += one.on_device
        second, two, later = place_samples(
            source.second, shared[1], device, ranks, training, available
        )
        both = KeptImages(
            one.in_memory + two.in_memory, one.on_device + two.on_device, one.processes
        )
        return replace(first, second=second), both, note or later
    size = source.index.nsamples * source.height * source.width * source.channels
    on_device = device_image_bytes(options, size, device, training, available)
    memory, reason = open_shared_memory(source, options, ranks)
    processes = ranks.local_world_size if memory else 1
    parts = 1 if memory else ranks.local_world_size
    kept = int(min(size, options.memory_gb * GIGABYTE / parts))
    if on_device and memory is None:
        kept = 0
    note = ""
    if reason:
        note = (
            "warning: the processes on this machine cannot share decoded images in main memory "
            f"({reason}); each decodes them for itself"
        )
    elif not on_device and options.device_gb not in ("auto", 0):
        note = (
            f"data.device_gb: all images take {format_bytes(size)}, more than "
            f"{options.device_gb:g} GB; they are kept in main memory as far as they fit"
        )
    place = Placement(device, bool(on_device), memory)
    return place, KeptImages(kept, on_device, processes), note

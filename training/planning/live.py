"""Measurement of live tensor memory: by the allocator, or operator by operator."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Course = list[int]
"""Live bytes after each operator."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the tensors that operators allocate in the `with` block, including backward passes,
    until they are freed; storages count once. `course` contains the live bytes after each operator,
    `now` those at the moment.

    Internal buffers of kernels and earlier tensors are not included.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.course: Course = []
        self.now = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for output in tensors_in(found):
            self._follow(output)
        self.course.append(self.now)
        return found

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        known = self._known.get(key)
        if size == 0 or (known is not None and known[0]() is storage):
            return
        self.now += size

        def freed(_: object) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, freed), len(self.course)

    def warm_up(self, action: Callable[[], object]) -> None:
        """Do nothing: each operator is seen, also in the first step."""

    def without(self, tensors: Iterable[Tensor]) -> Course:
        """Return the course without these tensors, which are still alive."""
        changes = [0] * (len(self.course) + 1)
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) in self._known:
                changes[self._known[id(storage)][1]] -= storage.nbytes()
        return [
            alive + change for alive, change in zip(self.course, accumulate(changes), strict=False)
        ]


class AllocatorPeak:
    """Reads the most that CUDA's allocator held in the `with` block, including internal buffers of
    kernels, on top of what it held before. `course` contains this one number of bytes.

    `warm_up` takes the first training step of a block, which allocates the moments: then they are
    in memory all the time, and `without` can subtract them.

    Args:
        allocator: has the functions of `torch.cuda` on allocated memory.
    """

    def __init__(self, device: torch.device, allocator: Any = torch.cuda) -> None:
        self.course: Course = []
        self._device, self._allocator, self._before = device, allocator, 0

    def __enter__(self) -> AllocatorPeak:
        self._allocator.reset_peak_memory_stats(self._device)
        self._before = self._allocator.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self.course = [self._allocator.max_memory_allocated(self._device) - self._before]

    def warm_up(self, action: Callable[[], object]) -> None:
        """Do what allocates lasting memory, without measuring it."""
        action()
        self._allocator.reset_peak_memory_stats(self._device)

    def without(self, tensors: Iterable[Tensor]) -> Course:
        """Return the course without these tensors, which `warm_up` allocated."""
        size = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        return [peak - size for peak in self.course]


def live_meter(device: torch.device) -> LiveBytes | AllocatorPeak:
    """Return what measures live memory on `device`."""
    return AllocatorPeak(device) if device.type == "cuda" else LiveBytes()


def tensors_in(found: object) -> Iterator[Tensor]:
    """Yield the tensors among what an operator returned: a tensor, or a sequence of results."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for item in found:
            yield from tensors_in(item)


def extended(few: Course, more: Course, sizes: tuple[int, int], count: int) -> float:
    """Return the maximum of live bytes with `count` images, from the courses with `sizes` images.

    The bytes after each operator are linear in the number of images. If the courses do not have the
    same operators, their maxima are used.
    """
    if len(few) != len(more):
        few, more = [max(few, default=0)], [max(more, default=0)]
    slope = (count - sizes[1]) / (sizes[1] - sizes[0])
    return max((b + (b - a) * slope for a, b in zip(few, more, strict=True)), default=0.0)

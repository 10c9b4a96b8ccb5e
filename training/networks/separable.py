"""Low-pass filters of images as two passes, one for each axis: half the multiplications of a 4 × 4
filter, in operations that a compiler fuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

Padding = tuple[int, int, int, int]
"""Rows and columns of zeros: left, right, top, bottom; negative values crop."""
FirPath = Literal["conv", "separable"]

_path: FirPath = "conv"


@contextmanager
def use_fir(path: FirPath) -> Iterator[None]:
    """Filter images in a `with` block by grouped convolutions (`conv`) or one axis at a time
    (`separable`)."""
    global _path
    before, _path = _path, path
    try:
        yield
    finally:
        _path = before


def is_separable() -> bool:
    """Return True in a `with` block of `use_fir("separable")`."""
    return _path == "separable"


def filter_axes(
    images: Tensor, taps: Tensor, up: int, down: int, padding: Padding, gain: float
) -> Tensor:
    """Return what `training.networks.resampling.upfirdn2d` does, for `taps` (k, k) that are an
    outer product and sum to 1. Compiled on CUDA; elsewhere the convolution is faster."""
    if images.is_cuda and not torch.compiler.is_compiling():
        return compiled(up, down, padding, gain)(images, taps)
    return _filter_axes(images, taps, up, down, padding, gain)


@lru_cache(maxsize=256)
def compiled(up: int, down: int, padding: Padding, gain: float) -> Callable[..., Tensor]:
    """Return the compiled function from images and taps to filtered images.

    PyTorch keeps compiled code by code object, and what varied by its name. Each kind of filter has
    its own: one for all would have so many shapes that PyTorch stopped compiling.
    """

    def run(images: Tensor, taps: Tensor) -> Tensor:
        return _filter_axes(images, taps, up, down, padding, gain)

    name = "_".join(str(number).replace("-", "m") for number in (up, down, *padding))
    code = run.__code__.replace(co_name=f"filter_{name}")
    own = FunctionType(code, globals(), closure=run.__closure__)
    found: Callable[..., Tensor] = torch.compile(own)
    return found


def _filter_axes(
    images: Tensor, taps: Tensor, up: int, down: int, padding: Padding, gain: float
) -> Tensor:
    left, right, top, bottom = padding
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    taps = taps.to(exact.dtype)
    exact = _filter_axis(exact, taps.sum(dim=1) * gain, 2, up, down, top, bottom)
    return _filter_axis(exact, taps.sum(dim=0), 3, up, down, left, right).to(images.dtype)


def _filter_axis(
    images: Tensor, taps: Tensor, axis: int, up: int, down: int, before: int, after: int
) -> Tensor:
    """Filter along one axis, without the products with inserted zeros.

    Of each `up` values of the result, the first is a weighted sum of every `up`-th tap, the second
    of the taps beside them, and so on.
    """
    count, size = taps.shape[0], images.shape[axis]
    full = size * up + before + after - count + 1
    length = -(-full // up)
    first = -(-before // up)
    last = (up * length + count - 2 - before) // up - (size - 1)
    images = pad(images, [first, last] if axis == 3 else [0, 0, first, last])
    step = down if up == 1 else 1
    length = (length - 1) // step + 1
    phases = []
    for phase in range(up):
        total = None
        for tap in range((before - phase) % up, count, up):
            start = (phase + tap - before) // up + first
            part = _every(images, axis, start, start + (length - 1) * step + 1, step)
            weight = taps[count - 1 - tap]  # convolution, not cross-correlation
            total = part * weight if total is None else torch.addcmul(total, part, weight)
        phases.append(images.new_zeros(()) if total is None else total)
    if up == 1:
        return phases[0]
    shape = list(images.shape)
    shape[axis] = length * up
    last_format = images.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last_format else torch.contiguous_format
    joined = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=form)
    for phase, values in enumerate(phases):
        _every(joined, axis, phase, length * up, up).copy_(values)
    return _every(joined, axis, 0, full, down)


def _every(images: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    place: list[Any] = [slice(None)] * axis
    return images[(*place, slice(start, stop, step))]

"""Copies of the values of a checkpoint, which training may change while they are written."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """The values of a checkpoint at one moment: about `bytes` of them, and as the content of a
    file, which any thread may ask for."""

    bytes: int
    content: Callable[[], memoryview]


def take_snapshot(values: dict[str, Any]) -> Snapshot:
    """Return the values as they are now.

    Tensors of a GPU are copied to pinned memory, and only `content` waits for that. Others are
    packed at once: that takes no longer than a copy, and no more memory.
    """
    devices = {tensor.device for tensor in tensors_of(values) if tensor.is_cuda}
    if not devices:
        content = pack(values)
        return Snapshot(len(content), lambda: content)
    copies = copy_to_host(values)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(devices.pop()))

    def wait_and_pack() -> memoryview:
        copied.synchronize()
        return pack(copies)

    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(copies))
    return Snapshot(size, wait_and_pack)


def pack(values: dict[str, Any]) -> memoryview:
    """Return the content of a file with these values, which loads with `weights_only=True`."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getbuffer()


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors in nested dicts, lists and tuples."""
    if isinstance(values, Tensor):
        return [values]
    items = values.values() if isinstance(values, dict) else values
    nested = isinstance(values, dict | list | tuple)
    return [tensor for item in items for tensor in tensors_of(item)] if nested else []


def copy_to_host(values: Any) -> Any:
    """Return nested dicts and lists with copies of their tensors in main memory, where equal views
    of one storage remain one tensor. Copies from a GPU are pinned, and not complete before its
    stream has come this far."""
    copies: dict[Any, Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            view = (
                value.device, value.dtype, value.data_ptr(), value.shape, value.stride(),
            )  # fmt: skip
            if view not in copies:
                copies[view] = value.detach().to("cpu", non_blocking=True, copy=True)
            return copies[view]
        if isinstance(value, dict):
            same = copy(value)  # a state_dict also has the versions of its modules
            same.update((key, copied(item)) for key, item in value.items())
            return same
        if isinstance(value, list | tuple):
            return [copied(item) for item in value]
        return value

    return copied(values)

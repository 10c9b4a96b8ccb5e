"""Distributed training (torchrun): ranks, and the few collective operations.

Gradients are summed here and not by DistributedDataParallel, which does not work with
`torch.autograd.grad` (see its documentation), as needed for gradient penalties. One all-reduce
after the backward passes of a step transfers the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from pipeline.contract import UserError

_TIMEOUT = timedelta(minutes=10)
"""Timeout for other processes: one that has died must not block the others for ever."""


@dataclass(frozen=True)
class Distributed:
    """The rank of this process among `world_size`; `local_rank` and `local_world_size` count on
    this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_max(self, value: int, device: torch.device) -> int:
        """Return the largest value over all processes."""
        if self.world_size == 1:
            return value
        told = torch.tensor([value], device=device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        return int(told.item())

    def broadcast(self, value: Any) -> Any:
        """Return the value of the main process in all processes."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.world_size > 1:
            distributed.barrier()


SINGLE_PROCESS = Distributed()


@contextmanager
def init_distributed(backend: str) -> Iterator[Distributed]:
    """Join the processes started by torchrun; a single process without torchrun.

    `backend` is `gloo` for CPUs and `nccl` for GPUs.

    Raises:
        UserError: torchrun's environment variables are invalid, or the others do not respond.
    """
    world = _from_environment("WORLD_SIZE", 1, 1)
    if world == 1:
        yield SINGLE_PROCESS
        return
    local = _from_environment("LOCAL_RANK", 0, 0)
    neighbours = _from_environment("LOCAL_WORLD_SIZE", world, 1)
    if not (_from_environment("RANK", 0, 0) < world and local < neighbours <= world):
        raise UserError(
            "RANK, LOCAL_RANK, LOCAL_WORLD_SIZE: must be below WORLD_SIZE; start with torchrun"
        )
    try:
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    except Exception as error:  # noqa: BLE001 (each backend and store raises its own)
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the processes cannot reach each other: {reason}") from None
    try:
        yield Distributed(distributed.get_rank(), distributed.get_world_size(), local, neighbours)
    finally:
        distributed.destroy_process_group()


def _from_environment(name: str, default: int, least: int) -> int:
    """Return the integer in an environment variable of torchrun.

    Raises:
        UserError: it is not an integer, or below `least`.
    """
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= least):
        raise UserError(
            f"{name}={text}: must be an integer of at least {least}, as set by torchrun"
        )
    return int(text)

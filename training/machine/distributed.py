"""Distributed training (torchrun): ranks, and the few collective operations.

Gradients are summed here and not by DistributedDataParallel, which does not work with
`torch.autograd.grad` (see its documentation), as needed for gradient penalties. One all-reduce
after the backward passes of a step transfers the same bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from pipeline.contract import UserError

_TIMEOUT = timedelta(minutes=10)
"""Timeout for the sums of a step: one that has died must not block the others for ever."""
_CONTROL_TIMEOUT = timedelta(hours=6)
"""Timeout for decisions, which the others await while the main process evaluates or saves. They
notice at once if it dies: its connections close."""


class WeightsDiffer(UserError):
    """Processes that must hold equal weights do not."""


@dataclass(frozen=True)
class Distributed:
    """The rank of this process among `world_size`; `local_rank` and `local_world_size` count on
    this machine. Decisions and objects pass through `control`, a group of gloo, on CPUs."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    control: Any = None

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

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in one message."""
        self.all_reduce_sum(tensors)
        for tensor in tensors if self.world_size > 1 else ():
            tensor.div_(self.world_size)

    def all_reduce_max(self, value: int) -> int:
        """Return the largest value over all processes."""
        if self.world_size == 1:
            return value
        told = torch.tensor([value])
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX, group=self.control)
        return int(told.item())

    def broadcast(self, value: Any) -> Any:
        """Return the value of the main process in all processes."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        every = [value] * self.world_size
        if self.world_size > 1:
            distributed.all_gather_object(every, value, group=self.control)
        return every

    def check_equal(self, weights: Iterable[Tensor]) -> None:
        """Compare the bits of float32 `weights` over all processes, which all call this.

        Raises:
            WeightsDiffer: some processes have others than most.
        """
        if self.world_size == 1:
            return
        sums = [weight.detach().view(torch.int32).sum(dtype=torch.int64) for weight in weights]
        every = self.all_gather(torch.stack(sums).tolist())
        usual = Counter(map(str, every)).most_common(1)[0][0]
        odd = [str(rank) for rank, found in enumerate(every) if str(found) != usual]
        if odd:
            which = f"process {', '.join(odd)}" if self.world_size > 2 else "one process"
            raise WeightsDiffer(
                f"the weights of {which} of {self.world_size} differ from those of the others: a "
                "device or its memory may be faulty. Nothing was saved; to resume from the last "
                "checkpoint, run the same command on other devices"
            )


SINGLE_PROCESS = Distributed()


class DelayedMax:
    """The largest value over all processes, one call late, so that none waits for the others. A
    single process gets its own value at once."""

    def __init__(self, ranks: Distributed) -> None:
        self._ranks = ranks
        self._sent: tuple[Tensor, Any] | None = None

    def __call__(self, value: int) -> int:
        """Send an integer; return the largest that was sent with the call before (0: none was)."""
        if self._ranks.world_size == 1:
            return value
        largest, sent = self.receive(), torch.tensor([value])
        kind, group = distributed.ReduceOp.MAX, self._ranks.control
        self._sent = sent, distributed.all_reduce(sent, op=kind, group=group, async_op=True)
        return largest

    def receive(self) -> int:
        """Return what a call would, and send nothing."""
        if self._sent is None:
            return 0
        (sent, work), self._sent = self._sent, None
        work.wait()
        return int(sent.item())


def world_size() -> int:
    """Return the number of processes that torchrun has started; 1 without it.

    Raises:
        UserError: its environment variable is invalid.
    """
    return _from_environment("WORLD_SIZE", 1, 1)


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Distributed]:
    """Join the processes started by torchrun; a single process without torchrun.

    Gradients are summed through `nccl` if `device` is a GPU (the process's own is that of its local
    rank), else through `gloo`.

    Raises:
        UserError: torchrun's environment variables are invalid, or the others do not respond.
    """
    world = world_size()
    if world == 1:
        yield SINGLE_PROCESS
        return
    local = _from_environment("LOCAL_RANK", 0, 0)
    neighbours = _from_environment("LOCAL_WORLD_SIZE", world, 1)
    if not (_from_environment("RANK", 0, 0) < world and local < neighbours <= world):
        raise UserError(
            "RANK, LOCAL_RANK, LOCAL_WORLD_SIZE: must be below WORLD_SIZE; start with torchrun"
        )
    gpu = torch.device("cuda", local) if device.type == "cuda" else None
    try:
        distributed.init_process_group("nccl" if gpu else "gloo", timeout=_TIMEOUT, device_id=gpu)
        control = distributed.new_group(timeout=_CONTROL_TIMEOUT, backend="gloo")
    except Exception as error:  # noqa: BLE001 (each backend and store raises its own)
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the processes cannot reach each other: {reason}") from None
    try:
        rank, size = distributed.get_rank(), distributed.get_world_size()
        yield Distributed(rank, size, local, neighbours, control)
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

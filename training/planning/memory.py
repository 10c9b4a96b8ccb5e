"""How much memory a step needs, measured on small batches before the run begins."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pipeline.contract import UserError
from training.config import Config
from training.data import Batch, Source
from training.machine.ranks import Ranks
from training.networks import ImageShape
from training.planning.forecast import Forecast, moments, parameters
from training.state import State, new_state
from training.step import Step
from training.techniques.lazy import optimizers

_PROGRAM = 500 << 20
"""About what the interpreter and PyTorch take on the CPU."""
_BATCHES = (4, 8)
_EXHAUSTED = ("out of memory", "can't allocate memory")
REMEDY = "a smaller --batch, --micro-batch, --data.memory_gb or --resolution takes less"
"""What helps where training does not fit."""


class _Alive:
    """The bytes that a backward pass is waiting for, now and at most; storages count once."""

    def __init__(self, ignored: set[int]) -> None:
        self._ignored, self._uses = ignored, dict[int, int]()
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> _Held:
        storage = tensor.untyped_storage()
        held = _Held(self, tensor, storage.data_ptr(), storage.nbytes())
        if held.key not in self._ignored:
            self._uses[held.key] = self._uses.get(held.key, 0) + 1
            if self._uses[held.key] == 1:
                self.now += held.size
                self.most = max(self.most, self.now)
        return held

    def drop(self, key: int, size: int) -> None:
        if key in self._uses:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]
                self.now -= size


class _Held:
    def __init__(self, alive: _Alive, tensor: Tensor, key: int, size: int) -> None:
        self.alive, self.tensor, self.key, self.size = alive, tensor, key, size

    def __del__(self) -> None:
        self.alive.drop(self.key, self.size)


def _saved(state: State, config: Config, shape: ImageShape, count: int) -> int:
    """The most bytes that backward passes wait for in a step of `count` images."""
    small = replace(config, batch=count, micro_batch=0, n_critic=1, compile=False)
    device = next(state.generator.parameters()).device
    images = torch.zeros((count, shape.height, shape.width, shape.channels), dtype=torch.uint8)
    batch = Batch(images.permute(0, 3, 1, 2), torch.zeros(count, dtype=torch.int64))
    state.steps = 0  # so that penalties at intervals are due
    networks = (state.generator, state.discriminator)
    alive = _Alive({w.untyped_storage().data_ptr() for n in networks for w in n.parameters()})
    with saved_tensors_hooks(alive.pack, lambda held: held.tensor):
        Step(small, state, device)([batch])
    return alive.most


def state_bytes(state: State, config: Config) -> int:
    """The bytes of weights, moving average, gradients and the optimisers' moments."""
    numbers = parameters(state.average)
    networks = (state.generator, state.discriminator)
    for network, table in zip(networks, optimizers(config), strict=True):
        numbers += parameters(network) * (2 + moments(table))
    return 4 * numbers


def step_bytes(config: Config, shape: ImageShape, device: torch.device, ranks: Ranks) -> int:
    """About the bytes that training takes on the device: weights, average, optimisers, gradients,
    and what the backward passes of a batch wait for.

    The last is measured on as many images as go through at once; where these are more than eight,
    on two small batches, and extended in proportion.

    Raises:
        UserError: the device has not even the memory for that.
    """
    try:
        state = new_state(config, shape, device)
        waiting = _waiting(state, config, shape, ranks)
    except RuntimeError as error:
        if not _is_exhausted(error):
            raise
    else:
        program = _PROGRAM if device.type == "cpu" else 0
        return int(program + state_bytes(state, config) + 1.2 * waiting)
    available = available_bytes(device)  # here, where the error no longer holds the tensors
    there = "available" if available is None else f"the {available / 1e9:.1f} GB available"
    raise UserError(f"batch: training takes more memory than {there}; {REMEDY}")


def _waiting(state: State, config: Config, shape: ImageShape, ranks: Ranks) -> float:
    """The most bytes that backward passes wait for in a step of the configuration."""
    share = -(-config.batch // ranks.world)
    count = min(config.micro_batch or share, share)
    few, more = (size * config.discriminator.packing for size in _BATCHES)
    if count <= more:
        return _saved(state, config, shape, count)
    start = _saved(state, config, shape, few)
    slope = (_saved(state, config, shape, more) - start) / (more - few)
    return max(0, start + slope * (count - few))


def _is_exhausted(error: RuntimeError) -> bool:
    """Whether it says that memory is used up; CPU and MPS have no error of their own for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in _EXHAUSTED
    )


def refuse_too_large(found: Forecast, device: torch.device) -> None:
    """Refuse a run that does not fit in memory.

    Raises:
        UserError: it does not; the line says what helps.
    """
    need = found.memory + (found.images if device.type == "cpu" else 0)
    if found.available is not None and need > found.available:
        raise UserError(
            f"batch: training takes about {need / 1e9:.1f} GB of memory, "
            f"{found.available / 1e9:.1f} GB are available; {REMEDY}"
        )


def image_bytes(config: Config, source: Source, ranks: Ranks) -> int:
    """The bytes that decoded images take in this process's memory."""
    whole = source.index.nsamples * source.height * source.width * source.channels
    return int(min(whole, config.data.memory_gb * (1 << 30) / ranks.neighbours))


def available_bytes(device: torch.device) -> int | None:
    """The memory that training may take of the device, None where the system does not say: what is
    free, and on a GPU what PyTorch keeps there already (the state, what was measured with)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    found = [size for size in (_meminfo(), _group()) if size is not None]
    return min(found) if found else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))


def _group() -> int | None:
    """What the container's limit leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text().strip()
        now = int((folder / "memory.current").read_text())
        cached = (folder / "memory.stat").read_text().partition("\ninactive_file ")[2].split()
    except (OSError, ValueError):
        return None
    return int(most) - now + int(cached[0] if cached else 0) if most.isdigit() else None

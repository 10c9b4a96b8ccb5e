"""Selection and preparation of the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.contract import UserError


def choose_device(name: str) -> torch.device:
    """Return the device `name`; `auto` is CUDA, else MPS, else the CPU.

    On CUDA, float32 operations get full precision: TF32, on by default in convolutions, rounds to
    10 bits, and cached features of real images would depend on the device.

    Raises:
        UserError: the machine or the PyTorch build has no such device.
    """
    have = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in have.items() if there)
    if not have[name]:
        raise UserError(f"device: {name} is not available on this machine")
    if name == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name)


def is_bf16_fast(device: torch.device) -> bool:
    """Return True if networks are faster in bf16 than in fp32: on GPUs with such units, and on CPUs
    with AMX. On another CPU (AVX-512 with bf16), a step of `projected64` took 1.15 times and one of
    `shells64` 1.4 times as long as in fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    read: Any = getattr(torch.cpu, "get_capabilities", dict)  # not in every version
    return device.type == "cpu" and bool(read().get("amx_bf16"))


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return `values` on `device`. A copy from main memory to a GPU passes through pinned memory,
    so the program does not wait for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)

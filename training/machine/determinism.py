"""Deterministic operations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def determinism(asked: bool, device: torch.device) -> Iterator[None]:
    """If `asked`, operations that could give other bits the next time are replaced, or raise a
    RuntimeError that names them. If not, CUDA may benchmark convolutions and use the fastest."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark = device.type == "cuda" and not asked
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]

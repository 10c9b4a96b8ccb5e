"""Only operations that give the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def determinism(asked: bool, device: torch.device) -> Iterator[None]:
    """Where `asked`, operations that could give other bits the next time are replaced, or raise a
    RuntimeError that names them. Where not, CUDA may choose the fastest convolution by trying.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark = device.type == "cuda" and not asked
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]

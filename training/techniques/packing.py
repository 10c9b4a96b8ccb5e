"""Packing: several images form one sample (PacGAN, Lin et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(images: Tensor, size: int) -> Tensor:
    """(n·size, c, h, w) → (n, size·c, h, w): stack neighbouring images along the channels."""
    return _regroup(images, len(images) // size, images.shape[1] * size) if size > 1 else images


def unpack(images: Tensor, size: int) -> Tensor:
    """(n, size·c, h, w) → (n·size, c, h, w)."""
    return _regroup(images, len(images) * size, images.shape[1] // size) if size > 1 else images


def _regroup(images: Tensor, count: int, channels: int) -> Tensor:
    last = images.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    regrouped = images.reshape(count, channels, *images.shape[2:])
    return regrouped.contiguous(memory_format=form)

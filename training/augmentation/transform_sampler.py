"""Random choice of the images of a batch that a transform is applied to, and of its strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.machine.device import to_device


@dataclass(frozen=True)
class TransformSampler:
    """Random parameters for `count` images, float64 on the CPU; each transform is applied to
    each image with probability `p`, independently. `random` is a CPU generator: the numbers are
    the same on every device, and no step waits for them."""

    count: int
    p: float
    random: torch.Generator

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), (count, *shape)."""
        return torch.rand((self.count, *shape), generator=self.random, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, (count, *shape)."""
        return torch.randn((self.count, *shape), generator=self.random, dtype=torch.float64)

    def choice(self, among: int) -> Tensor:
        """Random integers in [0, among), int64 (count,)."""
        return torch.randint(among, (self.count,), generator=self.random)

    def where(self, value: Tensor, neutral: float, p: float | None = None) -> Tensor:
        """Return `value` (count, …) for the images that are chosen (with probability `p` instead
        of this object's, if given), `neutral` for the others."""
        happens = self.uniform(*(1,) * (value.ndim - 1)) < (self.p if p is None else p)
        return value.where(happens, torch.full_like(value, neutral))


def apply_to_rows(
    images: Tensor, rows: Tensor, transform: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Apply `transform` to the images with `rows` (bool, on the CPU), passing these images and
    their numbers (int64, on the CPU). Other images are returned bit for bit."""
    numbers = rows.nonzero().flatten()
    if not len(numbers):
        return images
    if len(numbers) == len(images):
        return transform(images, numbers)
    there = to_device(numbers, images.device)
    return images.index_copy(0, there, transform(images.index_select(0, there), numbers))

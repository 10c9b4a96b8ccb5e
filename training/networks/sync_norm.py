"""Batch norm over the batch of all processes.

PyTorch's SyncBatchNorm works only on GPUs and has no double backward pass, which gradient penalties
need. This one consists of differentiable operations around one all-reduce per layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from training.networks.layers import JointBatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. The loss of each process depends on it, so its
    gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # noqa: ARG004
        return _Sum.apply(slope.contiguous())  # type: ignore[no-any-return]


class CrossProcessBatchNorm(nn.Module):
    """The weights and running statistics of a batch norm, by the same names, over all processes.

    (n, c, …) → the same; n may differ between processes. Statistics are in float32.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, rank: int, world: int) -> None:
        super().__init__()
        self.rank, self.world = rank, world
        self.eps = norm.eps
        self.momentum = 0.1 if norm.momentum is None else norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        self.learning = isinstance(norm, JointBatchNorm)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, values: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (values.ndim - 2))
        fresh = self.training and (not self.learning or self.weight.requires_grad)
        mean, variance = self._moments(values) if fresh else self._remembered()
        gain = (variance + self.eps).rsqrt()
        if self.weight is not None:
            gain = gain * self.weight
        offset = -mean * gain if self.bias is None else self.bias - mean * gain
        return values * gain.view(shape).to(values.dtype) + offset.view(shape).to(values.dtype)

    def _remembered(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.running_mean, self.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        return mean, variance

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (c,) over all processes from those of each (Chan 1979):
        stable, with one all-reduce."""
        over = [0, *range(2, values.ndim)]
        own = values.float()
        mean = own.mean(dim=over)
        squares = (own - mean.view(1, -1, *[1] * (values.ndim - 2))).square().sum(dim=over)
        count = own.new_full((1,), own.numel() / own.shape[1])
        here = torch.cat([count, mean, squares])[None]
        nobody = [torch.zeros_like(here)]
        rows = torch.cat(nobody * self.rank + [here] + nobody * (self.world - 1 - self.rank))
        everyone: Tensor = _Sum.apply(rows)
        counts, means, sums = torch.split(everyone, [1, len(mean), len(mean)], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(dim=0) / total
        variance = (sums + counts * (means - mean).square()).sum(dim=0) / total
        self._remember(mean.detach(), (variance * (total / (total - 1).clamp_min(1))).detach())
        return mean, variance

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        old_mean, old_variance = self._remembered()
        old_mean.lerp_(mean, self.momentum)
        old_variance.lerp_(variance, self.momentum)
        count = self.num_batches_tracked
        assert isinstance(count, Tensor)
        count.add_(1)


def convert_batch_norm(network: nn.Module, rank: int, world: int) -> None:
    """Replace each batch norm in `network` by `CrossProcessBatchNorm`; the weights stay the
    same."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(network, name, CrossProcessBatchNorm(layer, rank, world))
        else:
            convert_batch_norm(layer, rank, world)

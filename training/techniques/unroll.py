"""The unrolled discriminator (Metz et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
"""A network's parameters and buffers by name, for `torch.func.functional_call`."""


def unroll(
    network: nn.Module, loss: Callable[[Weights], Tensor], steps: int, rate: float
) -> Weights:
    """The weights of `network` after `steps` of gradient descent on `loss` (eq. 7 to 9).

    They are functions of whatever `loss` depends on: gradients flow through the steps. The network
    itself, its running statistics too, stays as it is.
    """
    names = [name for name, _ in network.named_parameters()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    values = [weight.detach().requires_grad_(True) for weight in network.parameters()]
    for _ in range(steps):
        total = loss(dict(zip(names, values, strict=True)) | buffers)
        slopes = torch.autograd.grad(total, values, create_graph=True)
        values = [value - rate * slope for value, slope in zip(values, slopes, strict=True)]
    return dict(zip(names, values, strict=True)) | buffers

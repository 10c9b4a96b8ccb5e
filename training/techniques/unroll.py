"""The unrolled discriminator (Metz et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
"""Return a network's parameters and buffers by name, for `torch.func.functional_call`."""


def unroll(
    network: nn.Module, loss: Callable[[Weights], Tensor], steps: int, rate: float
) -> Weights:
    """Return the weights of `network` after `steps` of gradient descent on `loss` (eq. 7 to 9).

    They are differentiable functions of the inputs of `loss`. The network itself and its running
    statistics do not change.
    """
    names = [name for name, _ in network.named_parameters()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    values = [weight.detach().requires_grad_(True) for weight in network.parameters()]
    for _ in range(steps):
        total = loss(dict(zip(names, values, strict=True)) | buffers)
        slopes = torch.autograd.grad(total, values, create_graph=True)
        values = [value - rate * slope for value, slope in zip(values, slopes, strict=True)]
    return dict(zip(names, values, strict=True)) | buffers

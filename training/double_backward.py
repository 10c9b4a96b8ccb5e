"""Convolutions with a fast double backward pass on the CPU, as needed for gradient penalties."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

_TWICE = ContextVar("twice", default=False)
_SKIPS_WEIGHTS = ContextVar("skips_weights", default=False)


@contextmanager
def double_backward() -> Iterator[None]:
    """Prepare the block's computation for a double backward pass."""
    before = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(before)


@contextmanager
def skip_weight_gradients() -> Iterator[None]:
    """Convolutions of `convolve` do not compute derivatives with respect to weight and bias in
    backward passes of this block, which must not ask for them: they are a third of a pass."""
    before = _SKIPS_WEIGHTS.set(True)
    try:
        yield
    finally:
        _SKIPS_WEIGHTS.reset(before)


def convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """`conv2d`, with other kernels inside `double_backward` on the CPU."""
    if not _TWICE.get() or images.device.type != "cpu" or torch.compiler.is_compiling():
        return conv2d(images, weight, bias, stride, padding)
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        images, weight = images.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    found: Tensor = _Convolution.apply(images, weight, bias, stride, padding)
    return found


class _Convolution(torch.autograd.Function):
    """A convolution whose derivatives are two more functions. All three are linear in both
    arguments, and their derivatives are each other.

    PyTorch's second derivative with respect to the weight swaps samples and channels of a
    convolution, which takes twice as long as the dedicated kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.given, ctx.outside = (stride, padding), None if bias is None else bias.shape
        return conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (images, weight) = gradients[0], ctx.saved_tensors
        needed = list(ctx.needs_input_grad[:3])
        if _SKIPS_WEIGHTS.get():
            needed[1:] = [False, False]
        if not torch.is_grad_enabled():
            found = _backward(gradient, images, weight, ctx.given, needed, ctx.outside)
            return *found, None, None
        return (
            _ImageGradient.apply(gradient, weight, images, *ctx.given) if needed[0] else None,
            _WeightGradient.apply(gradient, images, weight, *ctx.given) if needed[1] else None,
            gradient.sum(dim=(0, 2, 3)) if needed[2] else None, None, None,
        )  # fmt: skip


class _ImageGradient(torch.autograd.Function):
    """The derivative with respect to the images, of which only the shape matters here."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, images: Tensor, *given: int
    ) -> Tensor | None:
        ctx.save_for_backward(gradient, weight)
        ctx.given = given
        return _backward(gradient, images, weight, given, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, (gradient, weight) = gradients[0], ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _Convolution.apply(images, weight, None, *ctx.given) if needed[0] else None,
            _WeightGradient.apply(gradient, images, weight, *ctx.given) if needed[1] else None,
            None, None, None,
        )  # fmt: skip


class _WeightGradient(torch.autograd.Function):
    """The derivative with respect to the weight, of which only the shape matters here."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, images: Tensor, weight: Tensor, *given: int
    ) -> Tensor | None:
        ctx.save_for_backward(gradient, images)
        ctx.given = given
        return _backward(gradient, images, weight, given, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, (gradient, images) = gradients[0], ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _Convolution.apply(images, weight, None, *ctx.given) if needed[0] else None,
            _ImageGradient.apply(gradient, weight, images, *ctx.given) if needed[1] else None,
            None, None, None,
        )  # fmt: skip


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, given: tuple[int, ...], needed: list[bool],
    bias: torch.Size | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    stride, padding = given
    found: tuple[Tensor | None, Tensor | None, Tensor | None]
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, bias, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
        needed,
    )  # fmt: skip
    return found

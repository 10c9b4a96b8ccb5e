"""Convolutions with a fast double backward pass, as needed for gradient penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d
from torch.overrides import TorchFunctionMode

_skips_weights = False  # a device's backward pass has a thread of its own, without our context


def double_backward() -> TorchFunctionMode:
    """Prepare the convolutions of a `with` block for a double backward pass.

    The results are those of `conv2d` and `conv_transpose2d`, with any stride, padding, dilation and
    groups. Compiled networks do not support it.
    """
    return _Convolutions()


@contextmanager
def skip_weight_gradients() -> Iterator[None]:
    """Convolutions of `double_backward` do not compute derivatives with respect to weight and bias
    in backward passes of this block, which must not ask for them: they are a third of a pass."""
    global _skips_weights
    before, _skips_weights = _skips_weights, True
    try:
        yield
    finally:
        _skips_weights = before


class _Geometry(NamedTuple):
    """The arguments of `aten::convolution` after the bias."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


class _Convolutions(TorchFunctionMode):
    """Calls `_Convolution` instead of PyTorch's convolutions of batches of images."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is conv2d:
            return _conv2d(*args, **given)
        if func is conv_transpose2d:
            return _conv_transpose2d(*args, **given)
        return func(*args, **given)


def _conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    # no network has single images, or `same`, which may pad one side more
    if input.ndim != 4 or isinstance(padding, str):
        return conv2d(input, weight, bias, stride, padding, dilation, groups)
    given = _Geometry(_pair(stride), _pair(padding), _pair(dilation), False, [0, 0], groups)
    return _convolve(input, weight, bias, given)


def _conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    if input.ndim != 4:
        return conv_transpose2d(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    around = _pair(output_padding)
    given = _Geometry(_pair(stride), _pair(padding), _pair(dilation), True, around, groups)
    return _convolve(input, weight, bias, given)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None, given: _Geometry) -> Tensor:
    device = images.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        images, weight = images.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    found: Tensor = _Convolution.apply(images, weight, bias, given)
    return found


class _Convolution(torch.autograd.Function):
    """A convolution whose derivatives are two more functions. All three are linear in both
    arguments, and their derivatives are each other.

    PyTorch's second derivative with respect to the weight is a convolution with filters as large as
    the images, for one group after the other.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, given: _Geometry
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.given, ctx.bias_shape = given, None if bias is None else bias.shape
        found: Tensor = torch.ops.aten.convolution(images, weight, bias, *given)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (images, weight) = gradients[0], ctx.saved_tensors
        needed = list(ctx.needs_input_grad[:3])
        if _skips_weights:
            needed[1:] = [False, False]
        if not torch.is_grad_enabled():
            return *_backward(gradient, images, weight, ctx.given, needed, ctx.bias_shape), None
        return (
            _ImageGradient.apply(gradient, weight, images, ctx.given) if needed[0] else None,
            _WeightGradient.apply(gradient, images, weight, ctx.given) if needed[1] else None,
            gradient.sum(dim=(0, 2, 3)) if needed[2] else None, None,
        )  # fmt: skip


class _ImageGradient(torch.autograd.Function):
    """The derivative with respect to the images, of which only the shape matters here."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, images: Tensor, given: _Geometry
    ) -> Tensor | None:
        ctx.save_for_backward(gradient, weight)
        ctx.given = given
        return _backward(gradient, images, weight, given, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, (gradient, weight) = gradients[0], ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _Convolution.apply(images, weight, None, ctx.given) if needed[0] else None,
            _WeightGradient.apply(gradient, images, weight, ctx.given) if needed[1] else None,
            None, None,
        )  # fmt: skip


class _WeightGradient(torch.autograd.Function):
    """The derivative with respect to the weight, of which only the shape matters here."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, images: Tensor, weight: Tensor, given: _Geometry
    ) -> Tensor | None:
        ctx.save_for_backward(gradient, images)
        ctx.given = given
        return _backward(gradient, images, weight, given, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, (gradient, images) = gradients[0], ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _Convolution.apply(images, weight, None, ctx.given) if needed[0] else None,
            _ImageGradient.apply(gradient, weight, images, ctx.given) if needed[1] else None,
            None, None,
        )  # fmt: skip


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, given: _Geometry, needed: list[bool],
    bias_shape: torch.Size | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    found: tuple[Tensor | None, Tensor | None, Tensor | None]
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, bias_shape, *given, needed
    )
    return found

"""Convolutions that are differentiated twice: the same numbers as PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, leaky_relu
from torch.utils._python_dispatch import TorchDispatchMode

from training.double_backward import convolve, double_backward, skip_weight_gradients
from training.losses import squared_gradient


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 4), (2, 0, 5), (2, 1, 4)])
def test_all_derivatives(stride: int, padding: int, size: int) -> None:
    """Against finite differences, the second ones and (through two layers) all mixed ones."""
    torch.manual_seed(0)

    def once(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with double_backward():
            return convolve(images, weight, bias, stride, padding)

    def layers(images: Tensor, first: Tensor, second: Tensor) -> Tensor:
        with double_backward():
            images = convolve(images, first, padding=1).square()
            return convolve(images, second, stride=stride, padding=padding)

    given = drawn(2, 2, size, size), drawn(3, 2, 3, 3), drawn(3)
    assert type(once(*given).grad_fn).__name__ == "_ConvolutionBackward"
    torch.testing.assert_close(once(*given), conv2d(*given, stride, padding))
    assert gradcheck(once, given)
    assert gradgradcheck(once, given)
    assert gradgradcheck(layers, (drawn(1, 1, size, size), drawn(2, 1, 3, 3), drawn(1, 2, 3, 3)))


def test_a_penalty_is_that_of_pytorch_s_convolutions() -> None:
    torch.manual_seed(0)
    first, bias, second = drawn(4, 3, 3, 3), drawn(4), drawn(2, 4, 3, 3)
    images = drawn(2, 3, 6, 6).detach()

    def critic(convolution: Any) -> Any:
        def score(images: Tensor) -> Tensor:
            maps = leaky_relu(convolution(images, first, bias, padding=1), 0.2, inplace=True)
            found: Tensor = convolution(maps, second, stride=2).square().sum(dim=(1, 2, 3))
            return found

        return score

    def derivatives(convolution: Any) -> tuple[Tensor, ...]:
        penalty = squared_gradient(critic(convolution), images)
        return torch.autograd.grad(penalty, (first, bias, second))

    for mine, theirs in zip(derivatives(convolve), derivatives(conv2d), strict=True):
        torch.testing.assert_close(mine, theirs)


class Masks(TorchDispatchMode):
    """What is asked of each backward pass of a convolution: images, weight, bias."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.seen.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


def test_only_what_is_asked_for_is_computed() -> None:
    images, weight = drawn(2, 2, 4, 4), drawn(2, 2, 3, 3)
    with double_backward():
        found = convolve(images * 1, weight, padding=1)
    with Masks() as masks, skip_weight_gradients():
        torch.autograd.grad(found.sum(), images, create_graph=True)
    assert masks.seen == [[True, False, False]]
    with Masks() as masks:
        torch.autograd.backward(convolve(images * 1, weight, padding=1).sum())
    assert masks.seen == [[True, True, False]]


def test_a_penalty_computes_no_gradient_of_a_weight_in_its_first_pass() -> None:
    images, weight = drawn(2, 2, 4, 4).detach(), drawn(2, 2, 3, 3)
    with Masks() as masks:
        squared_gradient(lambda some: convolve(some, weight, padding=1).sum((1, 2, 3)), images)
    assert masks.seen == [[True, False, False]]


def test_elsewhere_it_is_pytorch_s_own() -> None:
    assert type(convolve(drawn(1, 1, 3, 3), drawn(1, 1, 3, 3)).grad_fn).__name__ == (
        "ConvolutionBackward0"
    )

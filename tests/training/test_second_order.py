"""Convolutions that are differentiated twice: the same numbers as PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu
from torch.utils._python_dispatch import TorchDispatchMode

from training.double_backward import double_backward, skip_weight_gradients
from training.losses import squared_gradient
from training.networks import ImageShape, build_discriminator
from training.options.architectures import R3ganDiscriminator


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "plain": (conv2d, (4, 2, 3, 3), {"padding": 1}),
    "strided": (conv2d, (4, 2, 3, 3), {"stride": 2}),
    "strided, padded": (conv2d, (4, 2, 3, 3), {"stride": 2, "padding": 1}),
    "grouped": (conv2d, (4, 1, 3, 3), {"padding": 1, "groups": 2}),
    "depthwise": (conv2d, (2, 1, 2, 2), {"stride": 2, "groups": 2}),
    "not square": (conv2d, (3, 2, 1, 3), {"stride": (2, 1), "padding": (0, 2)}),
    "dilated": (conv2d, (2, 2, 2, 2), {"dilation": 2}),
    "transposed": (conv_transpose2d, (2, 3, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, grouped": (conv_transpose2d, (2, 2, 3, 3), {"stride": 2, "groups": 2}),
    "transposed, larger": (conv_transpose2d, (2, 1, 3, 3), {"stride": 2, "output_padding": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_all_derivatives(name: str) -> None:
    """Against PyTorch's own and finite differences, the second ones and (through two layers) all
    mixed ones."""
    torch.manual_seed(0)
    function, form, options = CASES[name]
    transposed = function is conv_transpose2d
    outputs = form[1] * options.get("groups", 1) if transposed else form[0]

    def once(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with double_backward():
            found: Tensor = function(images, weight, bias, **options)
        return found

    def layers(images: Tensor, first: Tensor, weight: Tensor) -> Tensor:
        with double_backward():
            found: Tensor = function(conv2d(images, first, padding=1).square(), weight, **options)
        return found

    given = drawn(2, 2, 4, 4), drawn(*form), drawn(outputs)
    assert type(once(*given).grad_fn).__name__ == "_ConvolutionBackward"
    torch.testing.assert_close(once(*given), function(*given, **options))
    assert gradcheck(once, given)
    assert gradgradcheck(once, given)
    assert gradgradcheck(layers, (drawn(1, 1, 4, 4), drawn(2, 1, 3, 3), drawn(*form)))


def test_a_penalty_is_that_of_pytorch_s_convolutions() -> None:
    torch.manual_seed(0)
    first, bias, second = drawn(4, 3, 3, 3), drawn(4), drawn(2, 4, 3, 3)
    images = drawn(2, 3, 6, 6).detach().requires_grad_()

    def score() -> Tensor:
        maps = leaky_relu(conv2d(images, first, bias, padding=1), 0.2, inplace=True)
        return conv2d(maps, second, stride=2).square().sum()

    def derivatives() -> tuple[Tensor, ...]:
        (gradient,) = torch.autograd.grad(score(), images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (first, bias, second))

    theirs = derivatives()
    with double_backward():
        mine = derivatives()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


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

    def convolved() -> Tensor:
        with double_backward():
            return conv2d(images * 1, weight, padding=1).sum()

    with Masks() as masks, skip_weight_gradients():
        torch.autograd.grad(convolved(), images, create_graph=True)
    assert masks.seen == [[True, False, False]]
    with Masks() as masks:
        torch.autograd.backward(convolved())
    assert masks.seen == [[True, True, False]]


def test_a_penalty_computes_no_gradient_of_a_weight_in_its_first_pass() -> None:
    images, weight = drawn(2, 2, 4, 4).detach(), drawn(2, 2, 3, 3)
    with Masks() as masks:
        squared_gradient(lambda some: conv2d(some, weight, padding=1).sum((1, 2, 3)), images)
    assert masks.seen == [[True, False, False]]


def test_elsewhere_it_is_pytorch_s_own() -> None:
    with double_backward():
        pass
    assert type(conv2d(drawn(1, 1, 3, 3), drawn(1, 1, 3, 3)).grad_fn).__name__ == (
        "ConvolutionBackward0"
    )


def test_a_single_image_is_pytorch_s_own() -> None:
    images, weight = drawn(2, 4, 4), drawn(3, 2, 3, 3)
    with double_backward():
        found = conv2d(images, weight)
    assert torch.equal(found, conv2d(images, weight))


class Convolutions(TorchDispatchMode):
    """Counts convolutions, and those whose filters are as large as the images."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.large = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.count += 1
            self.large += args[1].shape[2] > 4
        self.count += func is torch.ops.aten.convolution_backward.default
        return func(*args, **(kwargs or {}))


def test_a_penalty_costs_six_convolutions_a_layer() -> None:
    """Its forward pass; one backward pass, for the images alone; and for both of these a backward
    pass to images and weights. PyTorch's own second derivatives add one for each group, with
    filters as large as the images."""
    discriminator = build_discriminator(
        R3ganDiscriminator(widths=(16,), blocks=(1,)), ImageShape(16, 16, 3)
    )
    layers = (
        sum(isinstance(one, torch.nn.Conv2d) for one in discriminator.modules()) - 1
    )  # without basis
    images, labels = torch.randn(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64)
    with Convolutions() as seen:
        penalty = squared_gradient(lambda some: discriminator(some, labels).logits, images)
        torch.autograd.backward(penalty)
    assert seen.large == 0
    assert layers * 4 <= seen.count <= layers * 6

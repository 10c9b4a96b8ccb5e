"""Filters of two passes: equal to those of convolutions, in every network and derivative."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from gpu_steps import TINY, new_training, phase_gradients, relative_errors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.contract import UserError
from training.networks.resampling import downsample2d, setup_filter, upfirdn2d, upsample2d
from training.networks.separable import compiled, is_separable, use_fir
from training.options.resolve import resolve
from training.step import Step

PUBLISHED = (1.0, 3.0, 3.0, 1.0)
PADDINGS = [(2, 1, 2, 1), (1, 2, 1, 1), (1, 1, 1, 1), (2, 2, 2, 2), (0, 3, -1, 2), (-2, 4, 3, -1)]


def both(images: Tensor, taps: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    plain = upfirdn2d(images, taps, *given)
    with use_fir("separable"):
        return upfirdn2d(images, taps, *given), plain


@pytest.mark.parametrize(
    "taps", [PUBLISHED, (1.0, 4.0, 2.0), (1.0, 5.0, 2.0, 1.0, 3.0), (1.0,)], ids=str
)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("size", [(7, 5), (8, 9)], ids=str)
def test_two_passes_equal_a_convolution(
    taps: tuple[float, ...], up: int, down: int, padding: Any, size: tuple[int, int]
) -> None:
    images, row = torch.randn(2, 3, *size, dtype=torch.float64), torch.tensor(taps).double()
    weights = torch.outer(row, row) / row.sum() ** 2  # without the rounding of `setup_filter`
    found, plain = both(images, weights, up, down, padding, 3.0)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_type_and_memory_format_are_kept(kind: torch.dtype, form: torch.memory_format) -> None:
    images = torch.randn(2, 4, 8, 8).to(kind).contiguous(memory_format=form)
    taps = setup_filter(PUBLISHED)
    for resize in (upsample2d, downsample2d):
        with use_fir("separable"):
            found = resize(images, taps)
        assert found.dtype == kind
        assert found.is_contiguous(memory_format=form)
        exact = resize(images.double(), taps.double()).to(kind)
        tight = 1e-6 if kind == torch.float32 else 0.0  # rounded once
        torch.testing.assert_close(found, exact, rtol=tight, atol=tight)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_two_passes_have_two_derivatives(up: int, down: int) -> None:
    taps = setup_filter((1.0, 4.0, 2.0)).double()
    images = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)

    def resize(given: Tensor) -> Tensor:
        with use_fir("separable"):
            return upfirdn2d(given, taps, up, down, (2, 1, 1, 2))

    assert torch.autograd.gradcheck(resize, images)
    assert torch.autograd.gradgradcheck(resize, images)


class Operations(TorchDispatchMode):
    """Counts multiplications of two-pass filters, and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._overloadpacket in (torch.ops.aten.mul, torch.ops.aten.addcmul):
            self.products += found.numel()
        self.convolutions += func._overloadpacket == torch.ops.aten.convolution
        return found


@pytest.mark.parametrize(("up", "down", "most"), [(1, 1, 8), (2, 1, 3), (1, 2, 12)])
def test_each_pixel_costs_a_weight_per_row_and_column(up: int, down: int, most: int) -> None:
    """A convolution multiplies 16 times per pixel of the result, with zeros too."""
    images = torch.randn(1, 2, 64, 64, requires_grad=True)
    for backward in (False, True):
        with use_fir("separable"), Operations() as seen:
            found = upfirdn2d(images, setup_filter(PUBLISHED), up, down, (2, 1, 2, 1))
        if backward:
            with Operations() as seen:  # outside of `use_fir`, like the thread of a device
                found.sum().backward()
            most = {8: 8, 3: 12, 12: 3}[most]
        size = images.numel() if backward else found.numel()
        assert seen.convolutions == 0
        assert 0.9 * most < seen.products / size < 1.1 * most


@pytest.mark.parametrize("preset", ["stylegan2-64", "r3gan64"])
def test_a_step_has_the_same_gradients(preset: str) -> None:
    small = {**TINY[preset], "precision": "fp32"}
    plain = phase_gradients(new_training(preset, small, "cpu"))
    other = phase_gradients(new_training(preset, {**small, "fir": "separable"}, "cpu"))
    assert max(relative_errors(other, plain).values()) < 1e-5


@pytest.mark.parametrize("preset", ["stylegan2-64", "r3gan64"])
def test_a_step_filters_as_its_option_says(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Step, "_train", lambda *_: seen.append(is_separable()) or {})
    for fir in ("separable", "conv"):
        training = new_training(preset, {**TINY[preset], "fir": fir}, "cpu")
        training.step([training.batch])
    assert seen == [True, False]
    assert not is_separable()


def test_without_filters_the_option_is_refused() -> None:
    for preset, more in (("dcgan64", {}), ("stylegan2-64-economical", {})):
        with pytest.raises(UserError, match="fir: has an effect only on"):
            resolve(preset, {"fir": "separable", **more})


@pytest.fixture
def _compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about itself
        yield
    torch.compiler.reset()
    compiled.cache_clear()


def filter_compiled(kinds: list[tuple[int, int, Any]], sizes: Sequence[int]) -> None:
    taps = setup_filter(PUBLISHED)
    for up, down, padding in kinds:
        for size in sizes:
            images = torch.randn(2, 8, size, size).contiguous(memory_format=torch.channels_last)
            found = compiled(up, down, padding, 4.0)(images, taps)
            expected = upfirdn2d(images, taps, up, down, padding, 4.0)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_compiled_passes_are_the_same() -> None:
    filter_compiled([(1, 1, PADDINGS[1]), (2, 1, PADDINGS[0])], [12])


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_more_kinds_are_compiled_than_pytorch_compiles_of_one_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = [(1, 1, one) for one in PADDINGS[:3]] + [(2, 1, PADDINGS[0])]
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=2):
        filter_compiled(kinds, [6, 9, 12])

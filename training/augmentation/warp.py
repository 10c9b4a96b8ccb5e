"""Affine warping of images, band-limited and differentiable any number of times.

As in Karras et al. 2020a (Appendix B): upsampling by an orthogonal wavelet (SYM6), bilinear
sampling, downsampling by the same wavelet; the image is continued by reflection beyond its border.
Three differences make the result more exact: positions are measured from the wavelet's centre of
mass, coordinates are reflected instead of padding the image, and maps without free rotation are one
matrix per axis, which copies pixels if they map to pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.augmentation.geometry import AffineMaps
from training.augmentation.transform_sampler import apply_to_rows
from training.augmentation.wavelets import (
    BEFORE,
    along_axes,
    coarser,
    fine_count,
    finer,
    from_fine,
    reflect,
    to_fine,
)
from training.machine.device import to_device


def warp(images: Tensor, maps: AffineMaps) -> Tensor:
    """Warp `images` float32 (n, c, h, w) by `maps`; images with the identity are returned bit
    for bit."""
    linear, offset = maps.linear, maps.offset
    stays = (linear == torch.eye(2, dtype=linear.dtype)).all(dim=(1, 2)) & (offset == 0).all(dim=1)
    turned = linear[:, 0, 0] == 0
    free = ~turned & (linear[:, 0, 1] != 0)

    def straight(some: Tensor, rows: Tensor) -> Tensor:
        x = _axis(linear[rows, 0, 0], offset[rows, 0], some.shape[3], some.shape[3], some.device)
        y = _axis(linear[rows, 1, 1], offset[rows, 1], some.shape[2], some.shape[2], some.device)
        return along_axes(some, y, x)

    def quarter(some: Tensor, rows: Tensor) -> Tensor:
        height, width = some.shape[2:]
        x = _axis(linear[rows, 0, 1], offset[rows, 0], height, width, some.device)
        y = _axis(linear[rows, 1, 0], offset[rows, 1], width, height, some.device)
        return along_axes(some.transpose(2, 3), x, y)

    def any_angle(some: Tensor, rows: Tensor) -> Tensor:
        return _sample(some, linear[rows], offset[rows])

    images = apply_to_rows(images, ~stays & ~turned & ~free, straight)
    images = apply_to_rows(images, turned, quarter)
    return apply_to_rows(images, free, any_angle)


def _axis(scale: Tensor, offset: Tensor, count: int, size: int, device: torch.device) -> Tensor:
    """Return matrices (n, count, size) from a line of `size` pixels to one of `count`, in which
    pixel i of the result shows position scale·i + offset (both from the middle) of the source."""
    offset = offset + (size - 1) / 2 - scale * (count - 1) / 2
    copies = (scale.abs() == 1) & (offset == offset.round())
    scale, offset = (to_device(part.float(), device)[:, None] for part in (scale, offset))
    places = torch.arange(count, device=device, dtype=torch.float32)
    source = reflect(scale * places + offset, size).round().long()
    exact = torch.nn.functional.one_hot(source, size).float()
    if bool(copies.all()):
        return exact
    rise = finer(size, device)
    places = torch.arange(-BEFORE, fine_count(count) - BEFORE, device=device, dtype=torch.float32)
    fine = to_fine(reflect(scale * from_fine(places) + offset, size))
    below = fine.floor()
    share = (fine - below)[:, :, None]
    first = below.long()
    lines = torch.lerp(rise[first], rise[(first + 1).clamp(max=2 * size - 1)], share)
    copies = to_device(copies, device)[:, None, None]
    return torch.where(copies, exact, coarser(count, device) @ lines)


def _sample(images: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Warp `images` (n, c, h, w) by any maps."""
    height, width, device = *images.shape[2:], images.device
    rise_y, rise_x = finer(height, device), finer(width, device)
    fall_y, fall_x = coarser(height, device), coarser(width, device)
    fine = rise_y @ (images @ rise_x.mT)
    linear, offset = (to_device(part.float(), device) for part in (linear, offset))
    grid = _grid(linear, offset, height, width)
    moved: Tensor = _Sample.apply(fine, grid)
    return fall_y @ (moved @ fall_x.mT)


def _grid(linear: Tensor, offset: Tensor, height: int, width: int) -> Tensor:
    """Return the source positions of fine pixels, in [-1, 1] between the centres of the
    outermost pixels: (n, fine height, fine width, 2)."""
    x, y = (
        from_fine(torch.arange(fine_count(size), device=linear.device) - float(BEFORE))
        - (size - 1) / 2
        for size in (width, height)
    )
    grid = linear.new_empty(len(linear), len(y), len(x), 2)
    for axis, size in enumerate((width, height)):
        across = linear[:, axis, 0, None] * x + (offset[:, axis, None] + (size - 1) / 2)
        down = linear[:, axis, 1, None] * y
        place = to_fine(reflect(across[:, None, :] + down[:, :, None], size))
        torch.mul(place, 2 / (2 * size - 1), out=grid[..., axis]).sub_(1)
    return grid


class _Sample(torch.autograd.Function):
    """Bilinear sampling of images at a grid without a gradient.

    It is linear in the image, so its gradient is a scattering, and the gradient of that is sampling
    again; PyTorch's function has no second derivative.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape
        return torch.nn.functional.grid_sample(images, grid, align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(gradient, grid, ctx.size), None


class _Scatter(torch.autograd.Function):
    """The transpose of `_Sample`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        shape_only = values.new_zeros(()).expand(size)
        bilinear, zeros_outside = 0, 0
        images: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            values, shape_only, grid, bilinear, zeros_outside, True, [True, False]
        )[0]
        return images

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradient, grid), None, None

"""Equivariance: how exactly an image moves and turns with the input of its generator (Karras et al.
2021, section 2.2 and appendix E).

The peak signal-to-noise ratio, in dB, between images whose input features were shifted (EQ-T) or
rotated (EQ-R), and the shifted or rotated images. Higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fft import fftn, ifftn
from torch.nn.functional import conv2d, grid_sample, pad, pixel_shuffle

from pipeline.contract import UserError
from training.metrics.fake import draw_inputs, isolated_rng
from training.networks import Generator
from training.seeds import derive

_BATCH = 8
_LARGEST_SHIFT = 1 / 8
"""As a fraction of the image's side, in both directions, as published."""
_LOBES = 3
"""Of Lanczos' window; the product of a straight and a turned one reaches twice as far."""
_FAR = 64
"""Pixels up to which the ideal filters are convolved."""
_FINE = 4
"""Points per pixel between which a rotated image is interpolated."""
_PEAK = 2.0
"""The range of images."""


@dataclass(frozen=True)
class Equivariance:
    """A ratio `value` in dB, and its standard error `sd` over batches of images."""

    value: float
    sd: float


def require_transform(generator: Generator, name: str) -> Tensor:
    """Return the transform (3, 3) of a generator's input, which may be written to.

    Raises:
        UserError: it has none; the message names the run.
    """
    given = getattr(getattr(generator, "synthesis", None), "input", None)
    transform = getattr(given, "transform", None)
    if not isinstance(transform, Tensor):
        raise UserError(
            f"{name}: its generator has no input that can be shifted and rotated, so EQ-T and EQ-R "
            "do not exist; leave out --equivariance, or use runs of stylegan3"
        )
    return transform


@torch.no_grad()
def equivariance(
    generator: Generator, latent: str, labels: NDArray[np.int64], count: int, device: torch.device,
    seed: int = 0, name: str = "generator",
) -> dict[str, Equivariance]:  # fmt: skip
    """Return `eq_t` and `eq_r` of `count` images of a generator in evaluation mode on `device`.

    Shifts are of whole pixels. Labels are drawn from `labels`. The input's transform is restored.

    Raises:
        UserError: the input has no transform.
    """
    transform = require_transform(generator, name)
    latents, which = draw_inputs(latent, generator.z_dim, labels, count, seed, device)
    random = np.random.default_rng(derive(seed, "shifts and rotations"))
    errors: dict[str, list[tuple[float, float]]] = {"eq_t": [], "eq_r": []}

    def generate(start: int, matrix: Tensor) -> Tensor:
        some = slice(start, start + _BATCH)
        with _transformed(transform, matrix), isolated_rng(derive(seed, "noise", start), device):
            images: Tensor = generator(latents[some], which[some])
        return images.cpu().double()

    for start in range(0, count, _BATCH):
        before = generate(start, torch.eye(3))
        height, width = before.shape[2:]
        steps = [round(random.uniform(-1, 1) * _LARGEST_SHIFT * side) for side in (width, height)]
        matrix = torch.eye(3)
        matrix[:2, 2] = torch.tensor([-steps[0] / width, -steps[1] / height])
        wanted, inside = shifted(before, steps[0], steps[1])
        errors["eq_t"].append(_error(generate(start, matrix), wanted, inside))
        angle = random.uniform(-math.pi, math.pi)
        turned = generate(start, rotation(-angle))
        wanted, inside = rotated(before, angle)
        found, also_inside = limited_like_rotated(turned, angle)
        errors["eq_r"].append(_error(found, wanted, inside & also_inside))
    return {key: _ratio(values) for key, values in errors.items()}


@contextmanager
def _transformed(transform: Tensor, matrix: Tensor) -> Iterator[None]:
    before = transform.clone()
    transform.copy_(before.cpu() @ matrix)
    try:
        yield
    finally:
        transform.copy_(before)


def _error(found: Tensor, wanted: Tensor, inside: Tensor) -> tuple[float, float]:
    """Return the sum of squared differences where `inside` (h, w) is True, and their number."""
    square = (found - wanted).square() * inside
    return float(square.sum()), float(inside.sum()) * found.shape[0] * found.shape[1]


def _ratio(errors: list[tuple[float, float]]) -> Equivariance:
    squares, counts = (np.array(column) for column in zip(*errors, strict=True))
    mean = max(squares.sum() / max(counts.sum(), 1), 1e-30)
    value = 10 * math.log10(_PEAK**2 / mean)
    means = squares / np.maximum(counts, 1)
    spread = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return Equivariance(value, float(10 / math.log(10) * spread / mean))


def rotation(angle: float) -> Tensor:
    """The matrix (3, 3) of a rotation that takes x to y."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def shifted(images: Tensor, right: int, down: int) -> tuple[Tensor, Tensor]:
    """Return images (n, c, h, w) moved by whole pixels, and where they are known: bool (h, w)."""
    height, width = images.shape[2:]
    moved = images.roll((down, right), (2, 3))
    rows, columns = torch.arange(height), torch.arange(width)
    known = (rows - down >= 0) & (rows - down < height)
    across = (columns - right >= 0) & (columns - right < width)
    return moved, (known[:, None] & across[None]).to(images.device)


def band_limit(matrix: Tensor) -> Tensor:
    """Return a filter (k, k) with `_FINE` taps per pixel, which passes what two grids of pixels
    have in common: the own one, and one in which an offset d is `matrix` (2, 2) · d.

    It is the convolution of both ideal filters, windowed by that of both Lanczos windows. Each of
    the `_FINE`² sets of taps that meet pixels at once has sum 1.
    """
    fine = _FINE
    reach = 2 * _LOBES * fine - 1
    steps = torch.arange(1 - _FAR * fine, _FAR * fine, dtype=torch.float64) / fine
    x, y = steps[None, :].expand(len(steps), -1), steps[:, None].expand(-1, len(steps))
    matrix = matrix.double()
    others = matrix[0, 0] * x + matrix[0, 1] * y, matrix[1, 0] * x + matrix[1, 1] * y

    def window(place: Tensor) -> Tensor:
        return (place / _LOBES).sinc() * (place.abs() < _LOBES)

    ideal = _convolved(x.sinc() * y.sinc(), others[0].sinc() * others[1].sinc())
    windows = _convolved(window(x) * window(y), window(others[0]) * window(others[1]))
    middle = _FAR * fine - 1
    some = slice(middle - reach, middle + reach + 1)
    taps = (ideal * windows)[some, some]
    size = 2 * _LOBES * 2 * fine
    blocks = pad(taps, [1, 0, 1, 0]).view(size // fine, fine, size // fine, fine)
    blocks = blocks / blocks.sum(dim=(0, 2), keepdim=True)
    return blocks.reshape(size, size)[1:, 1:]


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    """The circular convolution of two arrays (k, k) around their middle, up to a factor."""
    found: Tensor = ifftn(fftn(first) * fftn(second)).real
    middle = len(first) // 2
    return found.roll((-middle, -middle), (0, 1))


def rotated(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Return square images (n, c, h, h) rotated by `angle`, which takes x to y, and where they are
    known: bool (h, h)."""
    count, channels, side, _ = images.shape
    back = rotation(-angle)[:2, :2].double()
    size = 4 * _LOBES
    taps = pad(band_limit(back.t()), [1, 0, 1, 0]).view(size, _FINE, size, _FINE)
    # one small filter for each point between pixels, and no zeros
    weight = taps.permute(1, 3, 0, 2).flatten(0, 1)[:, None].flip((2, 3)).to(images)
    around = pad(images.reshape(-1, 1, side, side), [size // 2 - 1, size // 2] * 2)
    fine = pixel_shuffle(conv2d(around, weight), _FINE)
    fine = fine.view(count, channels, *fine.shape[2:])
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    x, y = steps[None, :].expand(side, -1), steps[:, None].expand(-1, side)
    sources = torch.stack([back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y], -1)
    # pixel 0 of an image is point 0 of the fine grid
    grid = (sources + (side - 1) / 2) * _FINE * 2 / (fine.shape[2] - 1) - 1
    grid = grid.to(images).expand(count, -1, -1, -1)
    found = grid_sample(fine, grid, mode="bilinear", align_corners=True)
    edge = (side - 1) / 2 - 2 * _LOBES
    return found, (sources.abs() <= edge).all(dim=2).to(images.device)


def limited_like_rotated(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Return images without the frequencies that `rotated` removes from images that it turns by
    `angle` to where these are, and where they are known: bool (h, w)."""
    taps = band_limit(rotation(-angle)[:2, :2])[_FINE - 1 :: _FINE, _FINE - 1 :: _FINE].to(images)
    reach, channels = len(taps) // 2, images.shape[1]
    weight = taps.flip((0, 1)).expand(channels, 1, -1, -1)
    found = conv2d(images, weight, padding=reach, groups=channels)
    known = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
    known[reach:-reach, reach:-reach] = True
    return found, known

"""Maps have the paper's distribution; images follow maps exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor

from training.augmentation.geometry import AffineMaps, draw_maps, identity, rotation, scaling
from training.augmentation.transform_sampler import TransformSampler
from training.augmentation.warp import _Sample, _Scatter, warp

MANY = 20000


def maps_of(*chosen: str, p: float = 1.0, count: int = MANY, size: int = 64) -> AffineMaps:
    draws = TransformSampler(count, p, torch.Generator().manual_seed(5))
    return draw_maps(draws, frozenset(chosen), size, size)


def noise(count: int = 2, height: int = 16, width: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(2))


def one_map(linear: list[list[float]], offset: tuple[float, float], count: int = 2) -> AffineMaps:
    return AffineMaps(
        torch.tensor(linear, dtype=torch.float64).expand(count, 2, 2),
        torch.tensor(offset, dtype=torch.float64).expand(count, 2),
    )


# Draws


def test_nothing_chosen_moves_nothing() -> None:
    maps = maps_of()
    assert torch.equal(maps.linear, identity(MANY).linear)
    assert not maps.offset.any()


def test_flips_happen_to_half_of_p() -> None:
    side = maps_of("xflip", p=0.6).linear[:, 0, 0]
    assert set(side.tolist()) == {1.0, -1.0}
    assert float((side < 0).double().mean()) == pytest.approx(0.3, abs=0.012)


def test_quarter_turns_do_not_leak_below_one() -> None:
    """Of each other turn there is p/4: the distribution of turned images determines that of the
    originals as long as p < 1 (the circulant of these shares has no eigenvalue 0)."""
    linear = maps_of("rotate90", p=0.8).linear
    turns = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).div(math.pi / 2).round().remainder(4)
    shares = torch.bincount(turns.long(), minlength=4) / MANY
    assert shares.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.012)
    eigenvalues = torch.fft.fft(shares).abs()
    assert float(eigenvalues.min()) == pytest.approx(1 - 0.8, abs=0.02)


def test_integer_shifts_are_uniform_to_an_eighth() -> None:
    offset = maps_of("xint").offset
    assert torch.equal(offset, offset.round())
    assert (offset.min(), offset.max()) == (-8, 8)
    shares = np.bincount((offset[:, 0] + 8).long().numpy()) / MANY
    assert shares[1:-1] == pytest.approx(1 / 16, abs=0.006)
    assert shares[[0, -1]] == pytest.approx(1 / 32, abs=0.006)


def test_scales_are_lognormal() -> None:
    linear = maps_of("scale").linear
    octaves = -torch.log2(linear[:, 0, 0]).numpy() / 0.2
    assert scipy.stats.kstest(octaves, "norm").pvalue > 1e-3
    assert torch.equal(linear[:, 0, 0], linear[:, 1, 1])
    linear = maps_of("aniso").linear
    octaves = -torch.log2(linear[:, 0, 0]).numpy() / 0.2
    assert scipy.stats.kstest(octaves, "norm").pvalue > 1e-3
    assert float((linear[:, 0, 0] * linear[:, 1, 1] - 1).abs().max()) < 1e-12


def test_fractional_shifts_are_normal() -> None:
    shift = maps_of("xfrac").offset.flatten().numpy() / (64 * 0.125)
    assert scipy.stats.kstest(shift, "norm").pvalue > 1e-3


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_one_or_both_rotations_happen_with_p(p: float) -> None:
    linear = maps_of("rotate", p=p).linear
    moved = linear[:, 0, 1] != 0
    assert float(moved.double().mean()) == pytest.approx(p, abs=0.012)
    angles = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])[moved].numpy()
    assert scipy.stats.kstest(angles, "uniform", (-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_transforms_compose_in_the_papers_order() -> None:
    """Against homogeneous matrices, with each transform's own draws taken from a copy."""
    chosen = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
    maps = maps_of(*chosen, count=50)
    draws = TransformSampler(50, 1.0, torch.Generator().manual_seed(5))
    expected = np.tile(np.eye(3), (50, 1, 1))

    def apply(linear: np.ndarray, offset: np.ndarray | float = 0.0) -> None:
        matrix = np.tile(np.eye(3), (50, 1, 1))
        matrix[:, :2, :2] = linear
        matrix[:, :2, 2] = offset
        expected[:] = expected @ np.linalg.inv(matrix)

    def turn(angle: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1
        ).reshape(-1, 2, 2)  # fmt: skip

    def diagonal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x, 0 * x, 0 * x, y], 1).reshape(-1, 2, 2)

    def kept(value: Tensor) -> np.ndarray:
        return draws.where(value, 0).numpy()

    side = 1 - 2 * kept(draws.choice(2).double())
    apply(diagonal(side, np.ones(50)))
    apply(turn(-np.pi / 2 * kept(draws.choice(4))))
    apply(np.eye(2), np.round(kept((draws.uniform(2) * 2 - 1) * 0.125 * 64)))
    scale = 2 ** kept(draws.normal() * 0.2)
    apply(diagonal(scale, scale))
    apply(turn(-kept((draws.uniform() * 2 - 1) * np.pi)))
    scale = 2 ** kept(draws.normal() * 0.2)
    apply(diagonal(scale, 1 / scale))
    apply(turn(-kept((draws.uniform() * 2 - 1) * np.pi)))
    apply(np.eye(2), kept(draws.normal(2) * 0.125 * 64))
    assert np.abs(maps.linear.numpy() - expected[:, :2, :2]).max() < 1e-12
    assert np.abs(maps.offset.numpy() - expected[:, :2, 2]).max() < 1e-9


# Images that follow maps


def test_images_that_stay_are_the_same_bits() -> None:
    images = noise(3)
    maps = AffineMaps(torch.eye(2, dtype=torch.float64).repeat(3, 1, 1), torch.zeros(3, 2).double())
    assert warp(images, maps) is images
    maps.offset[1, 0] = 0.4
    moved = warp(images, maps)
    assert torch.equal(moved[[0, 2]], images[[0, 2]])
    assert not torch.equal(moved[1], images[1])


@pytest.mark.parametrize("width", [16, 24])
def test_blits_copy_pixels(width: int) -> None:
    images = noise(width=width)
    flipped = warp(images, one_map([[-1, 0], [0, 1]], (0, 0)))
    assert torch.equal(flipped, images.flip(3))
    half = warp(images, one_map([[-1, 0], [0, -1]], (0, 0)))
    assert torch.equal(half, images.rot90(2, (2, 3)))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)), mode="reflect")
    shifted = warp(images, one_map([[1, 0], [0, 1]], (3, -2)))
    assert np.array_equal(shifted.numpy(), padded[:, :, :16, 6:])


def test_quarter_turns_copy_pixels() -> None:
    images = noise()
    for turns, (cosine, sine) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        turned = warp(images, one_map([[cosine, -sine], [sine, cosine]], (0, 0)))
        assert torch.equal(turned, images.rot90(turns, (2, 3)))


def test_a_quarter_turn_of_a_wide_image_shows_its_middle() -> None:
    images = noise(height=16, width=24)
    turned = warp(images, one_map([[0, -1], [1, 0]], (0, 0)))
    assert torch.equal(turned[..., 4:20], images[..., 4:20].rot90(1, (2, 3)))
    assert turned.shape == images.shape


class Waves:
    """An image that goes on by reflection for ever, known at every position: slow cosines."""

    def __init__(self, height: int, width: int, rates: int = 4) -> None:
        self.height, self.width = height, width
        self.weights = np.random.default_rng(3).normal(size=(rates, rates)) / rates

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values at positions in pixels from the centre."""
        x = np.pi * (x + (self.width - 1) / 2) / (self.width - 1)
        y = np.pi * (y + (self.height - 1) / 2) / (self.height - 1)
        return sum(
            weight * np.cos(k * y) * np.cos(j * x)
            for (k, j), weight in np.ndenumerate(self.weights)
        )

    def moved(self, linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[: self.height, : self.width].astype(float)
        x, y = x - (self.width - 1) / 2, y - (self.height - 1) / 2
        return self.at(
            linear[0, 0] * x + linear[0, 1] * y + offset[0],
            linear[1, 0] * x + linear[1, 1] * y + offset[1],
        )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_map_of_a_band_limited_image_is_exact(height: int, width: int, channels: int) -> None:
    """Rotations, scales, shifts, and all of them, against the image's formula in float64. The
    tolerance is bilinear interpolation's at twice the resolution."""
    waves, turn = Waves(height, width), math.radians(33)
    cosine, sine = math.cos(turn), math.sin(turn)
    cases = [
        ([[1, 0], [0, 1]], (0.37, -2.71)),
        ([[0.8, 0], [0, 0.8]], (0, 0)),
        ([[-1.3, 0], [0, 0.9]], (4.5, 0)),
        ([[0, -1.2], [0.9, 0]], (0.3, 7.1)),
        ([[cosine, -sine], [sine, cosine]], (0, 0)),
        ([[-1 + 1e-9, -1e-9], [1e-9, -1]], (0, 0)),
        ([[0.9 * cosine, -1.2 * sine], [1.1 * sine, 0.8 * cosine]], (11.3, -8.9)),
    ]
    image = torch.from_numpy(waves.moved(np.eye(2), np.zeros(2))).float()
    images = image.expand(len(cases), channels, height, width).contiguous()
    maps = AffineMaps(
        torch.tensor([linear for linear, _ in cases], dtype=torch.float64),
        torch.tensor([offset for _, offset in cases], dtype=torch.float64),
    )
    for found, (linear, offset) in zip(warp(images, maps), cases, strict=True):
        expected = waves.moved(np.array(linear), np.array(offset))
        assert np.abs(found.numpy() - expected).max() < 0.004 * np.abs(expected).max()


def test_a_busy_image_is_moved_as_splines_move_it() -> None:
    random = np.random.default_rng(4)
    image = scipy.ndimage.gaussian_filter(random.normal(size=(64, 64)), 2, mode="mirror")
    image /= image.std()
    angle, zoom = math.radians(-62), 0.85
    linear = zoom * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    rows = linear[::-1, ::-1]  # scipy's coordinates are y, x
    centre = np.array([31.5, 31.5])
    expected = scipy.ndimage.affine_transform(
        image, rows, centre - rows @ centre + np.array([1.3, 0.4]), order=5, mode="mirror"
    )
    maps = AffineMaps(
        torch.from_numpy(linear)[None], torch.tensor([[0.4, 1.3]], dtype=torch.float64)
    )
    found = warp(torch.from_numpy(image).float()[None, None], maps)[0, 0].numpy()
    assert np.abs(found - expected).max() < 0.08
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.015


def test_axes_and_grid_agree() -> None:
    """A map without a rotation, by matrices and (a hair turned) by the grid."""
    images = noise(1, 32, 32)
    straight = one_map([[0.83, 0], [0, 1.21]], (2.4, -1.1), 1)
    turned = one_map([[0.83, 1e-9], [0, 1.21]], (2.4, -1.1), 1)
    torch.testing.assert_close(warp(images, straight), warp(images, turned), rtol=0, atol=2e-4)


# Gradients


def mixed_maps() -> AffineMaps:
    """One of each way to go: stays, blit, straight, quarter, any angle."""
    linear = identity(5).linear.clone()
    offset = torch.zeros(5, 2, dtype=torch.float64)
    offset[1] = torch.tensor([2.0, -1.0])
    linear[2] = scaling(torch.tensor([0.8]), torch.tensor([1.1]))[0]
    linear[3] = torch.tensor([[0, -1.2], [1, 0]])
    linear[4] = rotation(torch.tensor([0.6]), torch.tensor([0.8]))[0]
    return AffineMaps(linear, offset)


def matrix_of(maps: AffineMaps, size: int) -> Tensor:
    """The maps of one-channel images as matrices (5, pixels, pixels)."""
    basis = torch.eye(size * size).view(-1, 1, 1, size, size).expand(-1, 5, 1, size, size)
    columns = [warp(images.contiguous(), maps).flatten(1) for images in basis]
    return torch.stack(columns, dim=2)


def test_gradients_of_both_orders_are_those_of_the_matrix() -> None:
    """R1's gradient through the warp, against the same with the warp as a plain matrix."""
    size, maps = 8, mixed_maps()
    matrix = matrix_of(maps, size)
    weight = torch.randn(size * size, 6, generator=torch.Generator().manual_seed(0))

    def penalty(moved: Tensor, images: Tensor, trained: Tensor) -> Tensor:
        logits = (moved.flatten(1) @ trained).tanh().sum()
        (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
        return gradient.square().sum()

    results = []
    for way in ("warp", "matrix"):
        images = noise(5, size, size, 1).requires_grad_(True)
        trained = weight.clone().requires_grad_(True)
        moved = (
            warp(images, maps) if way == "warp" else torch.bmm(matrix, images.flatten(1)[..., None])
        )
        value = penalty(moved, images, trained)
        results.append((value, *torch.autograd.grad(value, (trained, images))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_sampling_and_scattering_have_derivatives_of_every_order() -> None:
    random = torch.Generator().manual_seed(0)
    grid = torch.rand(2, 5, 6, 2, generator=random, dtype=torch.float64) * 1.8 - 0.9
    images = torch.randn(2, 2, 7, 4, generator=random, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 2, 5, 6, generator=random, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _Sample.apply(x, grid).sin(), (images,))
    assert torch.autograd.gradgradcheck(lambda x: _Sample.apply(x, grid).sin(), (images,))
    assert torch.autograd.gradcheck(lambda x: _Scatter.apply(x, grid, images.shape), (values,))

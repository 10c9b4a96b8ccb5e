"""Colours, bands, noise and rectangles against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor

from training.augmentation.color import draw_colors, hue_rotation, recolor
from training.augmentation.corruption import add_noise, cut_out, draw_cutouts, draw_noise
from training.augmentation.filtering import draw_gains, filter_bands
from training.augmentation.transform_sampler import TransformSampler
from training.augmentation.wavelets import band_filters

MANY = 20000


def draws(p: float = 1.0, count: int = MANY) -> TransformSampler:
    return TransformSampler(count, p, torch.Generator().manual_seed(7))


def noise(channels: int = 3, count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(2))


# Colours


def test_brightness_is_added() -> None:
    matrix, offset = draw_colors(draws(), {"brightness"})
    assert torch.equal(matrix, torch.eye(3).double().expand(MANY, 3, 3))
    assert scipy.stats.kstest(offset.numpy() / 0.2, "norm").pvalue > 1e-3


def test_contrast_multiplies() -> None:
    matrix, offset = draw_colors(draws(), {"contrast"})
    factor = matrix[:, 0, 0]
    assert scipy.stats.kstest(factor.log2().numpy() / 0.5, "norm").pvalue > 1e-3
    assert torch.equal(matrix, torch.eye(3) * factor[:, None, None])
    assert not offset.any()


def test_luma_flip_turns_gray_and_keeps_colour() -> None:
    matrix, _ = draw_colors(draws(p=0.8), {"lumaflip"})
    flipped = matrix[:, 0, 0] < 0.9
    assert float(flipped.double().mean()) == pytest.approx(0.4, abs=0.012)
    gray, colour = torch.ones(3).double(), torch.tensor([1.0, -3, 2]).double()
    torch.testing.assert_close(matrix[flipped][0] @ gray, -gray)
    torch.testing.assert_close(matrix[flipped][0] @ colour, colour)
    assert torch.equal(matrix[~flipped][0], torch.eye(3).double())


def test_hue_turns_about_the_gray_axis() -> None:
    third = hue_rotation(torch.tensor([2 * math.pi / 3]).double())[0]
    torch.testing.assert_close(third @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 1, 0]).double())  # fmt: skip # noqa: E501
    matrix, _ = draw_colors(draws(), {"hue"})
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).double().expand(MANY, 3, 3))
    torch.testing.assert_close(matrix.sum(2), torch.ones(MANY, 3).double())  # gray stays
    chroma = torch.tensor([1.0, -1, 0]).double()
    across = torch.tensor([1.0, 1, -2]).double() / math.sqrt(3)
    turned = matrix @ chroma
    angles = torch.atan2(turned @ across / 2, turned @ chroma / 2)
    assert scipy.stats.kstest(angles.numpy(), "uniform", (-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_saturation_multiplies_the_distance_from_gray() -> None:
    matrix, _ = draw_colors(draws(), {"saturation"})
    colour = torch.tensor([0.9, 0.1, 0.2]).double()
    away = matrix @ colour - 0.4
    factor = away[:, 0] / 0.5
    assert scipy.stats.kstest(factor.log2().numpy(), "norm").pvalue > 1e-3
    torch.testing.assert_close(away, factor[:, None] * (colour - 0.4))


def test_all_together_are_one_after_the_other() -> None:
    """The composed map on an image, against each transform's formula applied to its pixels."""
    images, given = noise(), draws(count=4)
    order = ("brightness", "contrast", "lumaflip", "hue", "saturation")
    found = recolor(images, *draw_colors(given, set(order)))
    again = draws(count=4)
    expected = images.double().movedim(1, 3).reshape(4, -1, 3)
    for name in order:
        matrix, offset = draw_colors(again, {name})
        expected = expected @ matrix.mT + offset[:, None, None]
    expected = expected.view(4, 16, 16, 3).movedim(3, 1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_gray_images_change_as_colour_images_that_are_gray() -> None:
    gray = noise(channels=1)
    maps = draw_colors(draws(count=4), {"brightness", "contrast", "lumaflip", "hue", "saturation"})
    found, colour = recolor(gray, *maps), recolor(gray.expand(4, 3, 16, 16), *maps)
    torch.testing.assert_close(found.expand_as(colour), colour, rtol=0, atol=1e-5)


def test_colours_that_nobody_drew_are_the_same_bits() -> None:
    images = noise()
    everything = {"brightness", "contrast", "lumaflip", "hue", "saturation"}
    assert recolor(images, *draw_colors(draws(p=0, count=4), everything)) is images
    matrix, offset = draw_colors(draws(p=0, count=4), everything)
    offset[2] = 0.3
    changed = recolor(images, matrix, offset)
    assert torch.equal(changed[[0, 1, 3]], images[[0, 1, 3]])
    torch.testing.assert_close(changed[2], images[2] + 0.3)


# Bands


def test_gains_keep_the_expected_power() -> None:
    gains = draw_gains(draws())
    power = torch.tensor([10.0, 1, 1, 1]).double() / 13
    # each band is normalised by itself, so that the product is only nearly so
    single = draw_gains(draws(p=0.02))
    alone = (single != 1).any(1)
    torch.testing.assert_close((single[alone].square() * power).sum(1).median(), torch.tensor(1.0).double())  # fmt: skip # noqa: E501
    assert float(alone.double().mean()) == pytest.approx(1 - 0.98**4, abs=0.005)
    # the last band's octaves before the normalisation, from the ratio to the first
    ratio = (gains[:, 3] / gains[:, 0]).log2()
    assert float(ratio.std()) == pytest.approx(2**0.5, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_bands_are_filtered_on_both_axes(height: int, width: int) -> None:
    images = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    gains = torch.ones(3, 4, dtype=torch.float64)
    gains[1] = torch.tensor([0.7, 2.0, 0.3, 1.6])
    found = filter_bands(images, gains)
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    taps = (gains[1] @ band_filters()).numpy()
    expected = images[1].double().numpy()
    for axis in (1, 2):
        expected = scipy.ndimage.convolve1d(expected, taps, axis=axis, mode="mirror")
    assert np.abs(found[1].numpy() - expected).max() < 1e-5


# Corruptions


def test_noise_has_the_strength_drawn() -> None:
    scale = draw_noise(draws())
    assert scipy.stats.kstest(scale.numpy() / 0.1, "halfnorm").pvalue > 1e-3
    assert float((draw_noise(draws(p=0.3)) > 0).double().mean()) == pytest.approx(0.3, abs=0.012)
    images = noise(count=3, size=64)
    scale = torch.tensor([0.0, 0.2, 0.05]).double()
    added = add_noise(images, scale, torch.Generator().manual_seed(1)) - images
    assert not added[0].any()
    assert added[1:].flatten(1).std(dim=1).tolist() == pytest.approx([0.2, 0.05], rel=0.05)


def test_rectangles_are_half_the_size() -> None:
    happens, centre = draw_cutouts(draws(p=0.4))
    assert float(happens.double().mean()) == pytest.approx(0.4, abs=0.012)
    assert scipy.stats.kstest(centre.flatten().numpy(), "uniform").pvalue > 1e-3
    images = torch.ones(2, 3, 16, 32)
    places = torch.tensor([[0.5, 0.5], [0.1, 0.75]]).double()
    cut = cut_out(images, torch.tensor([True, True]), places)
    expected = torch.ones(2, 16, 32)
    expected[0, 4:12, 8:24] = 0
    expected[1, 8:16, :11] = 0
    assert torch.equal(cut, expected[:, None].expand(2, 3, 16, 32))
    assert cut_out(images, torch.tensor([False, False]), places) is images

"""Pictures by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.contract import UserError
from training.latent.image_numbers import LIMIT, latents_of, parse_numbers


@pytest.mark.parametrize("z_dim", [64, 101])
def test_latents_are_normal_and_independent(z_dim: int) -> None:
    drawn = latents_of(list(range(2000)), "gaussian", z_dim).numpy().astype(float)
    assert drawn.shape == (2000, z_dim)
    assert stats.kstest(drawn.ravel()[:50_000], "norm").pvalue > 1e-3
    for one, other in ((drawn[:, :-1], drawn[:, 1:]), (drawn[:-1], drawn[1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(drawn.T) - np.eye(z_dim)).max() < 0.12
    assert len(np.unique(drawn)) > 0.99 * drawn.size


def test_other_kinds_of_latents() -> None:
    uniform = latents_of(list(range(500)), "uniform", 16).numpy()
    assert stats.kstest(uniform.ravel(), "uniform", (-1, 2)).pvalue > 1e-3
    sphere = latents_of([1, 2], "sphere", 16)
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((2,), 4.0))


def test_a_number_is_a_picture_for_ever() -> None:
    several = latents_of([LIMIT - 1, 7, 0], "gaussian", 6)
    assert torch.equal(several[1], latents_of([7], "gaussian", 6)[0])
    assert torch.equal(several[1, :4], latents_of([7], "gaussian", 4)[0])
    torch.testing.assert_close(several[1], torch.tensor(by_hand(7, 6)))


def by_hand(number: int, count: int) -> list[float]:
    """The same with whole numbers of Python, one at a time."""

    def mix(value: int) -> int:
        value ^= value >> 16
        value = value * 0x85EBCA6B % LIMIT
        value ^= value >> 13
        value = value * 0xC2B2AE35 % LIMIT
        return value ^ value >> 16

    def uniform(place: int) -> float:
        start = mix((number + 0x7F4A7C15) % LIMIT)
        return (mix(start ^ mix((place + 0x9E3779B9) % LIMIT)) + 0.5) / LIMIT

    values: list[float] = []
    for place in range(0, count, 2):
        radius = math.sqrt(-2 * math.log(uniform(place)))
        angle = 2 * math.pi * uniform(place + 1)
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    return values


def test_numbers_are_read() -> None:
    assert parse_numbers("3,8,20-22", "--numbers") == [3, 8, 20, 21, 22]
    for text in ("", "a", "5-3", "-1", "1-", str(LIMIT), "0-5000", "1,,2", "0-4000,1-4000"):
        with pytest.raises(UserError, match="--numbers"):
            parse_numbers(text, "--numbers")

"""Filters and resampling against PyWavelets and against frequency responses."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch

from training.augmentation.wavelets import (
    BEFORE,
    CENTRE,
    SYM2,
    SYM6,
    band_filters,
    band_matrices,
    coarser,
    expected_power,
    fine_count,
    finer,
    reflect,
)


def test_taps_are_the_published_wavelets() -> None:
    assert list(SYM2) == pytest.approx(pywt.Wavelet("sym2").dec_lo, abs=1e-12)
    assert list(SYM6) == pytest.approx(pywt.Wavelet("sym6").dec_lo, abs=1e-12)


def test_finer_is_the_inverse_transform_without_details() -> None:
    """PyWavelets' reconstruction (its taps are in reverse) from the approximation alone."""
    line = np.random.default_rng(0).normal(size=40)
    expected = pywt.upcoef("a", line[::-1], "sym6")[::-1] * 2**0.5
    found = finer(40).double().numpy() @ line
    inside = slice(12, -12)  # no border is near
    assert found[inside] == pytest.approx(expected[BEFORE : BEFORE + 80][inside], abs=1e-5)


def test_coarser_undoes_finer() -> None:
    size = 32
    line = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fine = torch.zeros(fine_count(size), dtype=torch.float64)
    fine[BEFORE : BEFORE + 2 * size] = finer(size).double() @ line
    back = coarser(size).double() @ fine
    torch.testing.assert_close(back[6:-6], line[6:-6], rtol=0, atol=1e-6)


def test_centre_is_where_a_slow_change_stays() -> None:
    """A slow wave comes out of `finer` at the places that `CENTRE` says."""
    place, rate = np.arange(64), 0.1
    fine = finer(64).double().numpy() @ np.cos(rate * place)
    expected = np.cos(rate * (np.arange(128) - (CENTRE - BEFORE)) / 2)
    assert np.abs(fine - expected)[20:-20].max() < 1e-3
    assert np.abs(fine - np.cos(rate * (np.arange(128) - 0.5) / 2))[20:-20].max() > 0.01


def test_reflect_goes_on_as_numpy_pads() -> None:
    padded = np.pad(np.arange(5), 11, mode="reflect")
    found = reflect(torch.arange(-11, 16), 5)
    assert found.tolist() == padded.tolist()
    assert reflect(torch.arange(3), 1).tolist() == [0, 0, 0]


def test_bands_divide_the_frequencies() -> None:
    """Each band's response, from that of PyWavelets' SYM2 alone."""
    rates = np.linspace(0, np.pi, 200)

    def response(taps: np.ndarray, rate: np.ndarray) -> np.ndarray:
        return np.abs(np.exp(-1j * np.outer(rate, np.arange(len(taps)))) @ taps)

    def low(rate: np.ndarray) -> np.ndarray:
        return response(np.array(pywt.Wavelet("sym2").dec_lo), rate) ** 2 / 2

    def high(rate: np.ndarray) -> np.ndarray:
        return response(np.array(pywt.Wavelet("sym2").dec_hi), rate) ** 2 / 2

    expected = [
        low(rates) * low(2 * rates) * low(4 * rates),
        low(rates) * low(2 * rates) * high(4 * rates),
        low(rates) * high(2 * rates),
        high(rates),
    ]
    for taps, wanted in zip(band_filters().numpy(), expected, strict=True):
        assert taps == pytest.approx(taps[::-1])
        assert response(taps, rates) == pytest.approx(wanted, abs=1e-9)
    total = band_filters().sum(dim=0)
    assert total.numpy() == pytest.approx(np.eye(1, len(total), len(total) // 2)[0], abs=1e-10)


@pytest.mark.parametrize("size", [4, 16, 64])
def test_bands_add_up_to_the_image(size: int) -> None:
    torch.testing.assert_close(band_matrices(size).sum(0), torch.eye(size), rtol=0, atol=1e-6)


def test_expected_power_is_whole() -> None:
    assert float(expected_power().sum()) == pytest.approx(1)

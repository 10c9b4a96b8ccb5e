"""Low-pass filters designed from frequencies (Karras 2021, appendix C).

Kaiser's window with the attenuation that the number of taps allows, on the ideal low-pass filter:
a sinc along each axis, or a jinc of the radius.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def kaiser_beta(taps: int, width: float) -> float:
    """Return the shape of Kaiser's window for a filter of `taps` taps, whose transition band has
    `width` as a fraction of half the sampling rate (Kaiser 1974)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # in dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        excess = attenuation - 21
        return float(0.5842 * excess**0.4 + 0.07886 * excess)
    return 0.0


def separable_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor | None:
    """Return a filter (taps,) with sum 1, float32; None for one tap, which filters nothing.

    `cutoff`, `width` of the transition band and sampling `rate` have the same unit.
    """
    if taps == 1:
        return None
    place = np.arange(taps) - (taps - 1) / 2
    window = np.kaiser(taps, kaiser_beta(taps, 2 * width / rate))
    return _normalized(np.sinc(2 * cutoff / rate * place) * window)


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor | None:
    """Return a radially symmetric filter (taps, taps) with sum 1, like `separable_lowpass`.

    The ideal response is a disc, whose inverse transform is a jinc: J₁(2πfr) / πr.
    """
    if taps == 1:
        return None
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(place[:, None], place[None, :]) * math.pi
    # at the centre of an odd number of taps: the limit of the quotient
    safe = np.maximum(radius, 1e-9 / rate)
    bessel = torch.special.bessel_j1(torch.from_numpy(2 * cutoff * safe)).numpy()
    window = np.kaiser(taps, kaiser_beta(taps, 2 * width / rate))
    return _normalized(bessel / safe * np.outer(window, window))


def _normalized(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values / values.sum()).to(torch.float32)

"""The Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017, eq. 6).

‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½. With Σ = F Fᵀ the last trace is the sum of the singular
values of F₁ᵀ F₂, so no matrix root is taken, and n < d samples cost n columns only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.metrics.distances import Features, Floats


@dataclass(frozen=True)
class Gaussian:
    """The mean (d,) and a factor (d, r) of the unbiased covariance, r = min(n, d)."""

    mean: Floats
    factor: Floats


def gaussian(features: Features) -> Gaussian:
    """Fit a Gaussian to features (n, d), n at least 2."""
    x = features.astype(np.float64)
    mean = x.mean(0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    if len(x) > x.shape[1]:
        centred = np.linalg.qr(centred, mode="r")  # RᵀR = XᵀX, without squaring
    return Gaussian(mean, centred.T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared Fréchet distance, 0 or more."""
    cross = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    traces = np.square(a.factor).sum() + np.square(b.factor).sum()
    return float(max(0.0, np.square(a.mean - b.mean).sum() + traces - 2 * cross))

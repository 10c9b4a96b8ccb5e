"""The kernel distance: an unbiased estimate of MMD² with a cubic kernel (Bińkowski et al. 2018).

k(x, y) = (xᵀy / d + 1)³; the estimate is theirs (Gretton et al. 2012, eq. 3).
"""

from __future__ import annotations

import numpy as np

from training.metrics.distances import Features, Floats, blocks


def _kernel(x: Floats, y: Floats) -> Floats:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def mean_kernel_within(features: Features) -> float:
    """Return the mean of k over all pairs of different rows of features (n, d)."""
    x = features.astype(np.float64)
    count = len(x)
    whole = sum(float(_kernel(x[rows], x).sum()) for rows in blocks(count))
    own = float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())
    return (whole - own) / (count * (count - 1))


def mean_kernel_between(a: Features, b: Features) -> float:
    """Return the mean of k over all pairs of rows of (n, d) and (m, d)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return sum(float(_kernel(x[rows], y).sum()) for rows in blocks(len(x))) / (len(x) * len(y))


def kernel_distance(a: Features, b: Features) -> float:
    """Return MMD² of all rows of (n, d) and (m, d); may be slightly negative for equal
    distributions."""
    return mean_kernel_within(a) + mean_kernel_within(b) - 2 * mean_kernel_between(a, b)

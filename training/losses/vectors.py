"""Losses on vectors: the discriminator gives each image several numbers, (n, k), or one, (n,).

They compare distributions of vectors by their distances, so the samples of a micro-batch with each
other; each micro-batch and process compares its own. Means over pairs of a kind leave out pairs of
a sample with itself: then the estimates have no bias.

A `critic` gives each of `values` the score by which a loss tells real from fake vectors, (n,): the
witness function. `own` names the set that `values` are of, where they are not compared with
themselves. Penalties limit its gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Target = Tensor | float
Similarity = Callable[[Tensor, Tensor], Tensor]

SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The widths of the mixture of Gaussian kernels (Li 2017, section 5)."""
LOWER, UPPER = 0.25, 4.0
"""The bounds of squared distances in the bounded kernel (Wang 2019)."""


def _rows(values: Tensor) -> Tensor:
    return values[:, None] if values.ndim == 1 else values


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖² of vectors (n, k) and (m, k), (n, m)."""
    return (_rows(first)[:, None] - _rows(second)).square().sum(dim=2)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖, (n, m), whose derivative is 0 for equal vectors."""
    return (squared_distances(first, second) + 1e-12).sqrt()


def mixture(first: Tensor, second: Tensor) -> Tensor:
    """k(a, b) = Σ over σ of exp(−‖a − b‖² / 2σ²), (n, m) (Li 2017, section 5)."""
    squares = squared_distances(first, second)
    return torch.stack([(-squares / (2 * sigma**2)).exp() for sigma in SIGMAS]).sum(dim=0)


def gaussian(first: Tensor, second: Tensor) -> Tensor:
    """k(a, b) = exp(−‖a − b‖² / 2), (n, m)."""
    return (-squared_distances(first, second) / 2).exp()


def mean_of_pairs(values: Tensor) -> Tensor:
    """Return the mean of (n, n) without its diagonal; 0 for one sample."""
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / max(1, count * (count - 1))


def _row_means(values: Tensor, own: bool) -> Tensor:
    if not own:
        return values.mean(dim=1)
    return (values.sum(dim=1) - values.diagonal()) / max(1, values.shape[1] - 1)


def _witness(
    similarity: Similarity, values: Tensor, real: Tensor, fake: Tensor, own: str
) -> Tensor:
    """Return the mean similarity to real minus that to fake vectors."""
    to_real = _row_means(similarity(values, real), own == "real")
    return to_real - _row_means(similarity(values, fake), own == "fake")


def _mmd(kernel: Similarity, real: Tensor, fake: Tensor) -> Tensor:
    """E k(x, x′) − 2 E k(x, y) + E k(y, y′) (Gretton 2012: the unbiased estimate)."""
    within = mean_of_pairs(kernel(real, real)) + mean_of_pairs(kernel(fake, fake))
    return within - 2 * kernel(real, fake).mean()


def mmd_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """−M²(D(x), D(G(z))) with the mixture of kernels (Li 2017, eq. 3)."""
    return -_mmd(mixture, real, fake)


def mmd_g(real: Tensor, fake: Tensor) -> Tensor:
    """M²(D(x), D(G(z))) (Li 2017, eq. 3)."""
    return _mmd(mixture, real, fake)


def mmd_critic(values: Tensor, real: Tensor, fake: Tensor, own: str = "") -> Tensor:
    """E k(v, x) − E k(v, y) (Gretton 2012: the witness function)."""
    return _witness(mixture, values, real, fake, own)


def mmd_repulsive_d(
    real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target
) -> Tensor:
    """E k(x, x′) − E k(y, y′): real vectors repel each other, fakes attract each other (Wang
    2019: the repulsive loss).

    The kernel is a bounded Gaussian: distances of real pairs count up to √`UPPER`, those of fakes
    down to √`LOWER`, so that neither grows or shrinks without limit.
    """
    apart, together = squared_distances(real, real), squared_distances(fake, fake)
    on_real = (-apart.clamp(max=UPPER) / 2).exp()
    on_fake = (-together.clamp(min=LOWER) / 2).exp()
    return mean_of_pairs(on_real) - mean_of_pairs(on_fake)


def mmd_repulsive_g(real: Tensor, fake: Tensor) -> Tensor:
    """M²(D(x), D(G(z))) with a Gaussian kernel (Wang 2019)."""
    return _mmd(gaussian, real, fake)


def mmd_repulsive_critic(values: Tensor, real: Tensor, fake: Tensor, own: str = "") -> Tensor:
    """Return `mmd_critic` with a Gaussian kernel."""
    return _witness(gaussian, values, real, fake, own)


def cramer_critic(values: Tensor, _real: Tensor, fake: Tensor, own: str = "") -> Tensor:
    """f(v) = E‖v − y′‖ − ‖v‖ (Bellemare 2017, algorithm 1)."""
    values = _rows(values)
    to_origin = (values.square().sum(dim=1) + 1e-12).sqrt()
    return _row_means(distances(values, fake), own == "fake") - to_origin


def cramer_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """E f(D(G(z))) − E f(D(x)) (Bellemare 2017, algorithm 1: the surrogate loss)."""
    on_real = cramer_critic(real, real, fake)
    return cramer_critic(fake, real, fake, "fake").mean() - on_real.mean()


def cramer_g(real: Tensor, fake: Tensor) -> Tensor:
    """2 E‖x − y‖ − E‖y − y′‖ of the vectors: the energy distance but for E‖x − x′‖, which does not
    depend on the generator (Bellemare 2017, algorithm 1)."""
    return 2 * distances(real, fake).mean() - mean_of_pairs(distances(fake, fake))


def _apart(real: Tensor, fake: Tensor) -> Tensor:
    return _rows(real).mean(dim=0) - _rows(fake).mean(dim=0)


def _length(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector)
    return length


def mcgan_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """−‖E D(x) − E D(G(z))‖₂ (Mroueh 2017: mean feature matching, IPM_{μ,2})."""
    return -_length(_apart(real, fake))


def mcgan_g(real: Tensor, fake: Tensor) -> Tensor:
    """‖E D(x) − E D(G(z))‖₂ (Mroueh 2017: mean feature matching)."""
    return _length(_apart(real, fake))


def mcgan_critic(values: Tensor, real: Tensor, fake: Tensor, _own: str = "") -> Tensor:
    """⟨v, D(·)⟩ with the unit vector v from the mean of fake to that of real vectors, where the
    difference is largest (Mroueh 2017)."""
    apart = _apart(real, fake)
    unit = apart / _length(apart).clamp_min(1e-12)
    return (_rows(values) * unit).sum(dim=1)

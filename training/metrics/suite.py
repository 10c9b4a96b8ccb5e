"""All metrics of fake against real images, each with its baseline and standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from training.metrics.distances import Features
from training.metrics.frechet import Gaussian, frechet_distance, gaussian
from training.metrics.inception_score import inception_score
from training.metrics.kernel import mean_kernel_between, mean_kernel_within
from training.metrics.memorisation import (
    copies,
    copy_distance,
    memorisation,
    memorisation_penalised,
)
from training.metrics.prdc import compute_prdc
from training.seeds import derive

MIN_IMAGES = 50
"""Minimum number of images on each side."""
PRDC_MAX_IMAGES = 5000
"""Precision, recall, density and coverage use at most this many images on each side."""
COPY_THRESHOLD = 0.1
"""MiFID penalises memorisation distances below this (Kaggle's value, for Inception's features;
with EfficientNet-Lite0, held-out photographs have 0.25)."""
HALVES, SPLITS = 8, 5

Logits = Callable[[Features], Features]
Values = dict[str, float]


@dataclass(frozen=True)
class FeatureSet:
    """Features (n, d) of real or generated images, and values computed from them once.

    `logits` gives class scores for features, `splits` is used by the inception score.
    """

    features: Features
    logits: Logits
    splits: int = 1

    @cached_property
    def gaussian(self) -> Gaussian:
        return gaussian(self.features)

    @cached_property
    def within(self) -> float:
        return mean_kernel_within(self.features)

    @cached_property
    def copy_distance(self) -> float:
        return copy_distance(self.features)

    def subset(self, rows: NDArray[np.int64]) -> FeatureSet:
        return FeatureSet(self.features[rows], self.logits, self.splits)

    def __len__(self) -> int:
        return len(self.features)


def _frechet(real: FeatureSet, fake: FeatureSet) -> Values:
    return {"fd": frechet_distance(real.gaussian, fake.gaussian)}


def _kernel(real: FeatureSet, fake: FeatureSet) -> Values:
    return {
        "kid": real.within + fake.within - 2 * mean_kernel_between(real.features, fake.features)
    }


def _manifold(real: FeatureSet, fake: FeatureSet) -> Values:
    count = min(len(real), len(fake), PRDC_MAX_IMAGES)
    found = compute_prdc(real.features[:count], fake.features[:count])
    return vars(found).copy()


def _classes(_real: FeatureSet, fake: FeatureSet) -> Values:
    return {"is": inception_score(fake.logits(fake.features), fake.splits)}


def _memory(real: FeatureSet, fake: FeatureSet) -> Values:
    distance = memorisation(real.features, fake.features)
    share, _ = copies(real.features, fake.features, real.copy_distance)
    return {"memorisation": distance, "copies": share}


METRICS: tuple[Callable[[FeatureSet, FeatureSet], Values], ...] = (
    _frechet, _kernel, _manifold, _classes, _memory,
)  # fmt: skip
"""Each returns one or more values by name; `compute_metrics` adds MiFID, which combines two of
them."""


def compute_metrics(real: FeatureSet, fake: FeatureSet) -> Values:
    """Compute all metrics of `fake` against `real` by their plain names, in a fixed order."""
    values: Values = {}
    for part in METRICS:
        values |= part(real, fake)
    values["mifid"] = memorisation_penalised(values["fd"], values["memorisation"], COPY_THRESHOLD)
    return values


@dataclass(frozen=True)
class Estimate:
    """The `value` of a metric, and its standard deviation over draws of fakes (`sd`).

    `baseline` is the score of real images against other real images: the bias of the metric. It
    uses `baseline_n` real images; if that is the number of fakes, a perfect generator would score
    the same. `None` if not available.
    """

    value: float
    sd: float
    baseline: float | None = None
    baseline_sd: float | None = None
    baseline_n: int | None = None


def baseline(
    real: FeatureSet, count: int, seed: int = 0
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return mean and standard deviation of every metric of `count` real images against the
    others, over random splits; and the number used, at most half of the real images."""
    count = min(count, len(real) // 2)
    random = np.random.default_rng(derive(seed, "splits of the real images"))
    found = []
    for _ in range(SPLITS):
        order = random.permutation(len(real))
        found.append(compute_metrics(real.subset(order[count:]), real.subset(order[:count])))
    return {name: _spread([one[name] for one in found]) for name in found[0]}, count


def _spread(values: list[float]) -> tuple[float, float]:
    return fmean(values), stdev(values)


def standard_deviations(real: FeatureSet, fake: FeatureSet, seed: int = 0) -> Values:
    """Estimate the standard deviation of every metric from random halves of the fakes.

    The spread of a statistic over halves drawn without replacement estimates that of the whole (the
    delete-d jackknife with d = n/2, Shao & Wu 1989). A bootstrap would contain fakes several times,
    which all these metrics take for mode collapse. The estimate is too high, especially with few
    fakes that are close to the real images.
    """
    random = np.random.default_rng(derive(seed, "halves of the fakes"))
    found = [
        compute_metrics(real, fake.subset(random.permutation(len(fake))[: len(fake) // 2]))
        for _ in range(HALVES)
    ]
    return {name: stdev(one[name] for one in found) for name in found[0]}


def estimate(real: FeatureSet, fake: FeatureSet, seed: int = 0) -> dict[str, Estimate]:
    """Compute all metrics with baseline and standard deviation, by their plain names."""
    values, around = compute_metrics(real, fake), standard_deviations(real, fake, seed)
    biases, count = baseline(real, len(fake), seed)
    return {
        name: Estimate(value, around[name], *biases[name], count)
        for name, value in values.items()
    }  # fmt: skip


def full_name(metric: str, network: str) -> str:
    """Return the name of a metric with the name of the feature network.

    With the standard Inception, the names are those of the literature: fid, kid, is, mifid.
    """
    if network == "inception":
        return {"fd": "fid", "kid": "kid", "is": "is", "mifid": "mifid"}.get(
            metric, f"{metric}_inception"
        )
    return f"{metric}_{network}"

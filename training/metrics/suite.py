"""All measures of a set of fakes against real images, each with its bias and its spread."""

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
"""With fewer images on a side nothing is computed."""
PRDC_MAX_IMAGES = 5000
"""Precision, recall, density and coverage are of at most so many images on either side."""
COPY_THRESHOLD = 0.1
"""Below this memorisation distance MiFID punishes (Kaggle's number, for Inception's features; in
those of EfficientNet-Lite0 held-out photographs keep 0.25)."""
HALVES, SPLITS = 8, 5

Logits = Callable[[Features], Features]
Values = dict[str, float]


@dataclass(frozen=True)
class FeatureSet:
    """Features (n, d) of real or of generated images, and what is computed of them once.

    `logits` gives class scores for features, `splits` is the inception score's.
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
"""Each gives one or more values by name; `measure` adds MiFID, which is made of two of them."""

LOWER_IS_BETTER = frozenset({"fd", "kid", "mifid", "copies", "ppl_w", "ppl_z"})


def compute_metrics(real: FeatureSet, fake: FeatureSet) -> Values:
    """Every measure of `fake` against `real` by its plain name, in a fixed order."""
    values: Values = {}
    for part in METRICS:
        values |= part(real, fake)
    values["mifid"] = memorisation_penalised(values["fd"], values["memorisation"], COPY_THRESHOLD)
    return values


@dataclass(frozen=True)
class Estimate:
    """A measure's `value`, and its standard deviation over draws of fakes (`sd`).

    `baseline` is what real images score against other real images: the measure's bias. It is of
    `baseline_n` real images; where that is the number of fakes, a perfect generator would score
    like it. `None` where there is none.
    """

    value: float
    sd: float
    baseline: float | None = None
    baseline_sd: float | None = None
    baseline_n: int | None = None


def baseline(
    real: FeatureSet, count: int, seed: int = 0
) -> tuple[dict[str, tuple[float, float]], int]:
    """Mean and standard deviation of every measure of `count` real images against the others, over
    random splits; and the number, at most half of the real images."""
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
    """The standard deviation of every measure, estimated from random halves of the fakes.

    The spread of a statistic over halves drawn without replacement estimates that of the whole (the
    delete-d jackknife with d = n/2, Shao & Wu 1989). A bootstrap would put each fake there several
    times, and all these measures take that for collapse. It errs upwards, most of all with few
    fakes that are close to the real images.
    """
    random = np.random.default_rng(derive(seed, "halves of the fakes"))
    found = [
        compute_metrics(real, fake.subset(random.permutation(len(fake))[: len(fake) // 2]))
        for _ in range(HALVES)
    ]
    return {name: stdev(one[name] for one in found) for name in found[0]}


def estimate(real: FeatureSet, fake: FeatureSet, seed: int = 0) -> dict[str, Estimate]:
    """Every measure with its bias and its spread, by its plain name."""
    values, around = compute_metrics(real, fake), standard_deviations(real, fake, seed)
    biases, count = baseline(real, len(fake), seed)
    return {
        name: Estimate(value, around[name], *biases[name], count)
        for name, value in values.items()
    }  # fmt: skip


def full_name(measure: str, network: str) -> str:
    """The honest name of a measure: which network's features it is of.

    With the standard Inception the names are those of the literature: fid, kid, is, mifid.
    """
    if network == "inception":
        return {"fd": "fid", "kid": "kid", "is": "is", "mifid": "mifid"}.get(
            measure, f"{measure}_inception"
        )
    return f"{measure}_{network}"

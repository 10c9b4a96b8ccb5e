"""All measures of a set of fakes against real images, each with its bias and its spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from training.metrics.class_score import class_score
from training.metrics.distances import Features
from training.metrics.frechet import Gaussian, frechet_distance, gaussian
from training.metrics.kernel import between, within
from training.metrics.manifold import manifold
from training.metrics.memorisation import (
    copies,
    copy_distance,
    memorisation,
    memorisation_penalised,
)
from training.seeds import derive

FEWEST = 50
"""With fewer images on a side nothing is computed."""
MANIFOLD_MOST = 5000
"""Precision, recall, density and coverage are of at most so many images on either side."""
COPY_THRESHOLD = 0.1
"""Below this memorisation distance MiFID punishes (Kaggle's number, for Inception's features; in
those of EfficientNet-Lite0 held-out photographs keep 0.25)."""
HALVES, SPLITS = 8, 5

Logits = Callable[[Features], Features]
Values = dict[str, float]


@dataclass(frozen=True)
class Side:
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
        return within(self.features)

    @cached_property
    def copy_distance(self) -> float:
        return copy_distance(self.features)

    def of(self, rows: NDArray[np.int64]) -> Side:
        return Side(self.features[rows], self.logits, self.splits)

    def __len__(self) -> int:
        return len(self.features)


def _frechet(real: Side, fake: Side) -> Values:
    return {"fd": frechet_distance(real.gaussian, fake.gaussian)}


def _kernel(real: Side, fake: Side) -> Values:
    return {"kid": real.within + fake.within - 2 * between(real.features, fake.features)}


def _manifold(real: Side, fake: Side) -> Values:
    count = min(len(real), len(fake), MANIFOLD_MOST)
    found = manifold(real.features[:count], fake.features[:count])
    return vars(found).copy()


def _classes(_real: Side, fake: Side) -> Values:
    return {"is": class_score(fake.logits(fake.features), fake.splits)}


def _memory(real: Side, fake: Side) -> Values:
    distance = memorisation(real.features, fake.features)
    share, _ = copies(real.features, fake.features, real.copy_distance)
    return {"memorisation": distance, "copies": share}


MEASURES: tuple[Callable[[Side, Side], Values], ...] = (
    _frechet, _kernel, _manifold, _classes, _memory,
)  # fmt: skip
"""Each gives one or more values by name; `measure` adds MiFID, which is made of two of them."""

LOWER_IS_BETTER = frozenset({"fd", "kid", "mifid", "copies", "ppl_w", "ppl_z"})


def measure(real: Side, fake: Side) -> Values:
    """Every measure of `fake` against `real` by its plain name, in a fixed order."""
    values: Values = {}
    for part in MEASURES:
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


def baseline(real: Side, count: int, seed: int = 0) -> tuple[dict[str, tuple[float, float]], int]:
    """Mean and standard deviation of every measure of `count` real images against the others, over
    random splits; and the number, at most half of the real images."""
    count = min(count, len(real) // 2)
    random = np.random.default_rng(derive(seed, "splits of the real images"))
    found = []
    for _ in range(SPLITS):
        order = random.permutation(len(real))
        found.append(measure(real.of(order[count:]), real.of(order[:count])))
    return {name: _spread([one[name] for one in found]) for name in found[0]}, count


def _spread(values: list[float]) -> tuple[float, float]:
    return fmean(values), stdev(values)


def spreads(real: Side, fake: Side, seed: int = 0) -> Values:
    """The standard deviation of every measure, estimated from random halves of the fakes.

    The spread of a statistic over halves drawn without replacement estimates that of the whole (the
    delete-d jackknife with d = n/2, Shao & Wu 1989). A bootstrap would put each fake there several
    times, and all these measures take that for collapse. It errs upwards, most of all with few
    fakes that are close to the real images.
    """
    random = np.random.default_rng(derive(seed, "halves of the fakes"))
    found = [
        measure(real, fake.of(random.permutation(len(fake))[: len(fake) // 2]))
        for _ in range(HALVES)
    ]
    return {name: stdev(one[name] for one in found) for name in found[0]}


def estimate(real: Side, fake: Side, seed: int = 0) -> dict[str, Estimate]:
    """Every measure with its bias and its spread, by its plain name."""
    values, around = measure(real, fake), spreads(real, fake, seed)
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

"""The numeric limits of select, and histograms of the values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.contract import OriginalRecord
from pipeline.options import SelectOptions

_BARS = 60


@dataclass(frozen=True)
class NumericLimit:
    """A property with a limit: the `value` of an image must be at least the limit if `least` is
    True, otherwise at most."""

    reason: str
    option: str
    value: Callable[[OriginalRecord], float]
    least: bool

    def limit(self, limits: SelectOptions) -> float:
        return float(getattr(limits, self.option))

    def passes(self, value: float, limit: float) -> bool:
        return value >= limit if self.least else value <= limit

    def rejection(self, record: OriginalRecord, limits: SelectOptions) -> str | None:
        """Return why an image is rejected; None if it passes or its value is NaN."""
        value, limit = self.value(record), self.limit(limits)
        if math.isnan(value) or self.passes(value, limit):
            return None
        return f"{value:.5g} {'<' if self.least else '>'} {limit:g}"


def _aspect(record: OriginalRecord) -> float:
    """Return long side / short side, 1 or more."""
    return max(record.width, record.height) / max(1, min(record.width, record.height))


NUMERIC_LIMITS = (
    NumericLimit("small", "min_side", lambda record: min(record.width, record.height), least=True),
    NumericLimit("elongated", "max_aspect", _aspect, least=False),
    NumericLimit("blurred", "min_sharpness", lambda record: record.sharpness, least=True),
    NumericLimit("uniform", "min_contrast", lambda record: record.contrast, least=True),
    NumericLimit("incomplete", "max_missing", lambda record: record.missing_part, least=False),
)
"""The limits on recorded properties, in the order in which they are applied."""


def histogram(
    values: Sequence[float], limit: float, measure: NumericLimit
) -> tuple[list[tuple[float, float, bool]], str]:
    """Return bars (left, height, passes) from 0 to 1 on a log scale, and the text of the axis."""
    if not values:
        return [], ""
    logs = np.log1p(np.asarray(values))
    low, high = float(logs.min()), float(logs.max()) + 1e-9
    counts, edges = np.histogram(logs, bins=_BARS, range=(low, high))
    middles = np.expm1((edges[:-1] + edges[1:]) / 2)
    bars = [
        (place / _BARS, float(count / counts.max()), measure.passes(float(middle), limit))
        for place, (count, middle) in enumerate(zip(counts, middles, strict=True))
    ]
    first, last = (f"{math.expm1(edge):.4g}" for edge in (low, float(logs.max())))
    return bars, f"{first} to {last}, log scale" if first != last else f"all {first}"

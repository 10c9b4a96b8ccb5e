"""The filters of select: limits on values that networks of optional packages give to images.

A filter is an entry point of group `shellgan.measures`: a function from (height, width, 3) uint8
images of any sizes to values, (n, 1). Its values are recorded once, as features are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.contract import DatasetPaths, OriginalRecord
from pipeline.events import EventLog
from pipeline.options import SelectOptions
from pipeline.select.features import ExtractorKind, read_values, record_features
from pipeline.select.numeric_limits import NumericLimit
from pipeline.select.rules import FILTERS

MEASURE_GROUP = "shellgan.measures"
"""The entry point group of measures."""
_SIDE = 640
MEASURES = {
    name: ExtractorKind(MEASURE_GROUP, f"select.{option}", _SIDE, name)
    for name, option in FILTERS.items()
}
"""The measure of each filter by its name."""


def active_filters(limits: SelectOptions) -> list[str]:
    """Return the names of the filters whose option is set."""
    return [name for name, option in FILTERS.items() if getattr(limits, option) is not None]


def record_filter_values(dataset: DatasetPaths, limits: SelectOptions, log: EventLog) -> None:
    """Compute the values of the active filters that are not recorded yet.

    Raises:
        UserError: a package is not installed.
    """
    for name in active_filters(limits):
        record_features(dataset, name, log, MEASURES[name])


@dataclass(frozen=True)
class _RecordedValues:
    """The recorded values of images, NaN if there is none."""

    by_key: dict[int, float]

    def __call__(self, record: OriginalRecord) -> float:
        return self.by_key.get(int(record.key, 16), math.nan)


def filter_limits(dataset: DatasetPaths, limits: SelectOptions) -> tuple[NumericLimit, ...]:
    """Return the limits of the active filters; the value of an image that has none is NaN.

    Raises:
        UserError: a file of recorded values is damaged.
    """
    return tuple(
        NumericLimit(name, FILTERS[name], _read(dataset, name), least=False)
        for name in active_filters(limits)
    )


def _read(dataset: DatasetPaths, name: str) -> _RecordedValues:
    by_key: dict[int, float] = {}
    for keys, values in read_values(dataset, name):
        by_key.update(zip(keys.tolist(), np.asarray(values)[:, 0].tolist(), strict=True))
    return _RecordedValues(by_key)

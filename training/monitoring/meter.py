"""Means of the stats of steps, kept on the device until a row is written."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from training.machine.distributed import Distributed

_ALL_COUNT: Mapping[str, Tensor] = MappingProxyType({})


class Meter:
    """Sums of stats by name, and their counts (a penalty is not computed in every step). A count is
    on the device if only that knows whether a step counted."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def add(self, stats: dict[str, Tensor], counts: Mapping[str, Tensor] = _ALL_COUNT) -> None:
        """Add the stats of a step. `counts` are the 0 (then the stat is 0) or 1 of some of them;
        the others count."""
        for name, value in stats.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + counts.get(name, 1)

    def merge(self, ranks: Distributed, weight: float) -> None:
        """Sum over all processes: a weighted mean, `weight` is the part of this process."""
        if ranks.world_size > 1 and self._sums:
            merged = torch.stack([value.float() for value in self._sums.values()]) * weight
            ranks.all_reduce_sum([merged])
            self._sums = dict(zip(self._sums, merged.unbind(), strict=True))

    def means(self) -> dict[str, float]:
        """Return the mean of each value since the last call. Waits for the device."""
        if not self._sums:
            return {}
        sums = torch.stack([value.float() for value in self._sums.values()]).tolist()
        counts = [float(self._counts[name]) for name in self._sums]
        found = {
            name: value / count
            for name, value, count in zip(self._sums, sums, counts, strict=True)
            if count
        }
        self._sums, self._counts = {}, {}
        return found

    def state(self) -> dict[str, Any]:
        counts = {name: int(count) for name, count in self._counts.items()}
        return {"sums": dict(self._sums), "counts": counts}

    def load(self, values: dict[str, Any], device: torch.device) -> None:
        """Restore `state`, with the sums on `device`, where the next stats will be."""
        self._sums = {name: value.to(device) for name, value in values["sums"].items()}
        self._counts = dict(values["counts"])

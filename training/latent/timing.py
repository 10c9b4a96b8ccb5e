"""When a walk is where: durations, easing and constant speed, as positions along its points.

A position is a real number: 1.5 is half way from point 1 to point 2 (see `points_along`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.grid import Pixels
from training.latent.neighbours import Describe, as_images

Floats = NDArray[np.float64]
Easing = Literal["linear", "cosine"]

GRID = 12
"""Images per pair whose distances are measured for a constant speed."""


def ease(share: Floats, easing: Easing) -> Floats:
    """Share of the way for a share of the time, both from 0 to 1: equal, or slow at both ends."""
    return 0.5 - 0.5 * np.cos(np.pi * share) if easing == "cosine" else share


@dataclass(frozen=True)
class ArcLength:
    """`table` (pairs, grid + 1): the distance from the start of each pair to its grid points."""

    table: Floats

    @property
    def lengths(self) -> Floats:
        """The length of each pair (pairs,)."""
        return self.table[:, -1]

    def share(self, pair: int, share: Floats) -> Floats:
        """Share of the interpolation at which a share of the pair's length has passed."""
        grid = np.linspace(0, 1, self.table.shape[1])
        if self.lengths[pair] == 0:  # equal images
            return share
        found: Floats = np.interp(share * self.lengths[pair], self.table[pair], grid)
        return found


@torch.no_grad()
def measure_arc_length(
    generate: Callable[[Floats], Pixels], describe: Describe, pairs: int,
    progress: Callable[[int, int], None],
) -> ArcLength:  # fmt: skip
    """Measure the distance between neighbours on a grid of `GRID` steps per pair.

    `generate` returns images uint8 (m, height, width, channels) at positions (m,), and `describe`
    their vectors, whose Euclidean distance counts.
    """
    vectors = []
    for pair in range(pairs):
        images = generate(pair + np.arange(GRID + (pair == pairs - 1)) / GRID)
        vectors.append(describe(as_images(images)).double().cpu())
        progress(pair + 1, pairs)
    steps = torch.cat(vectors).diff(dim=0).norm(dim=1).view(pairs, GRID).numpy()
    return ArcLength(np.concatenate([np.zeros((pairs, 1)), steps.cumsum(axis=1)], axis=1))


def share_durations(total: float, arc: ArcLength) -> Floats:
    """Return durations of the pairs (pairs,) in proportion to their lengths; their sum is
    `total`."""
    lengths = arc.lengths + max(arc.lengths.sum(), 1.0) * 1e-9  # equal images take no time
    durations: Floats = total * lengths / lengths.sum()
    return durations


def positions_at(
    times: Floats, durations: Sequence[float] | Floats, easing: Easing = "linear",
    arc: ArcLength | None = None,
) -> Floats:  # fmt: skip
    """Return the positions (m,) at times (m,) from 0 to the sum of the `durations` of the pairs.

    Easing applies to each pair. With `arc`, equal shares of the way are equal distances, otherwise
    equal steps of the interpolation.
    """
    ends = np.cumsum(durations)
    pairs = np.searchsorted(ends, times, side="right").clip(0, len(ends) - 1)
    found = np.empty(len(times))
    for pair in np.unique(pairs):
        here = pairs == pair
        passed = (times[here] - (ends[pair] - durations[pair])) / durations[pair]
        share = ease(passed.clip(0, 1), easing)
        found[here] = pair + (arc.share(pair, share) if arc else share)
    return found


def row_positions(
    pairs: int, steps: int, easing: Easing = "linear", arc: ArcLength | None = None
) -> Floats:
    """Return positions (pairs · steps,) for a grid: each row contains both ends of its pair."""
    share = ease(np.linspace(0, 1, steps), easing)
    return np.concatenate(
        [pair + (arc.share(pair, share) if arc else share) for pair in range(pairs)]
    )


def frame_times(total: float, frames: int, closed: bool, rates: Floats | None = None) -> Floats:
    """Return the times (frames,) of a walk that takes `total`: frame 0 is at 0.

    After the last frame of a closed walk, the next would be at `total` again; the last frame of an
    open walk is at `total`. Between frames k and k + 1 time passes in proportion to `rates[k]`,
    which are above 0 (default: equal).
    """
    rates = np.ones(frames) if rates is None else rates
    passed = np.concatenate([[0.0], np.cumsum(rates)])
    times: Floats = total * passed[:frames] / passed[frames if closed else frames - 1]
    return times

"""A term that keeps generated images as far apart as real ones (`loss.feature_spread`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from training.losses.adaptive import Scalars
from training.machine.distributed import Distributed

_KINDS = "real_distances", "fake_distances"
_RATE = 0.01
"""The share of a new batch in the moving averages."""

_POSITIONS = 4
"""Least number of positions per side of what is compared, the averages of larger maps."""

Maps = Sequence[Tensor]
"""Maps of features (n, c, h, w) of a batch, of several scales."""


def pair_distances(maps: Maps, labels: Tensor | None) -> Tensor:
    """Return the sum of the squared distances of all pairs of one label (both orders) for each of
    the maps, averaged to few positions, then the number of these pairs: float32 (maps + 1,).

    `labels` int64 (n,); None: all pairs.
    """
    count = len(maps[0])
    pairs = ~torch.eye(count, dtype=torch.bool, device=maps[0].device)
    if labels is not None:
        pairs &= labels[:, None] == labels
    sums = []
    for some in maps:
        pooled = avg_pool2d(some.float(), max(1, min(some.shape[2:]) // _POSITIONS))
        rows = pooled.flatten(1)
        rows = rows - rows.detach().mean(dim=0)  # so that the differences below lose few digits
        squares = rows.square().sum(dim=1)
        sums.append(((squares[:, None] + squares - 2 * rows @ rows.T) * pairs).sum())
    return torch.stack([*sums, pairs.sum().float()])


def _mean_distances(sums: Tensor) -> Tensor:
    """Return the mean squared distance of a pair for each map; 0 without a pair."""
    return sums[:-1] / sums[-1].clamp_min(1e-12)


class FeatureSpread:
    """Compares the distances of generated images with those of real ones, of one label if the
    generator `has_labels`.

    The state's `scalars` hold moving averages of `pair_distances` of both kinds of images, over the
    batches of all processes; w is the mean squared distance of real images, for each map.
    """

    def __init__(self, has_labels: bool, ranks: Distributed) -> None:
        self._has_labels, self._ranks = has_labels, ranks
        self._found: list[Tensor] = []

    def _distances(self, maps: Maps, labels: Tensor) -> Tensor:
        return pair_distances(maps, labels if self._has_labels else None)

    @torch.no_grad()
    def add(self, maps: tuple[Maps, Maps], labels: tuple[Tensor, Tensor]) -> None:
        """Add the real and the generated images of a micro-batch to those of the step."""
        new = [self._distances(*pair) for pair in zip(maps, labels, strict=True)]
        self._found = [a + b for a, b in zip(self._found, new, strict=True)] if self._found else new

    def observe(self, scalars: Scalars) -> Scalars:
        """Move the averages towards what was added in the step. Return the stat
        `feature_distance_ratio`: the mean over the maps of the average distance of generated
        images, divided by w."""
        found, self._found = self._found, []
        if not found:
            return {}
        self._ranks.all_reduce_sum(found)
        for name, new in zip(_KINDS, found, strict=True):
            before = scalars.setdefault(name, torch.zeros_like(new))
            # the maps of an fp16 step that overflows are not finite
            before.copy_(torch.where(new.isfinite().all(), before.lerp(new, _RATE), before))
        real, fake = (_mean_distances(scalars[name]) for name in _KINDS)
        return {"feature_distance_ratio": (fake / real.clamp_min(1e-12)).mean()}

    def loss(self, scalars: Scalars, maps: Maps, labels: Tensor) -> Tensor:
        """Return the mean over the maps of max(0, 1 − d/w)², where d is the mean squared distance
        of the pairs of a micro-batch of generated images.

        Images of different latents are kept apart up to a bound as in Yang et al. 2019 (section 3);
        here by features of a frozen network, and the bound is the distance of real images. As d
        varies between batches, the bound is slightly above w. 0 without a pair, and before real
        images were seen.
        """
        sums = self._distances(maps, labels)
        wanted = _mean_distances(scalars.setdefault(_KINDS[0], torch.zeros_like(sums)))
        ratio = _mean_distances(sums) / wanted.clamp_min(1e-12)
        known = (sums[-1] > 0) & (wanted > 0)
        return torch.where(known, (1 - ratio).relu().square(), 0).mean()

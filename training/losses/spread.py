"""A term that keeps generated images as far apart as real ones (`loss.feature_spread`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.adaptive import Scalars
from training.machine.distributed import Distributed

_NAME = "real_distances"
_RATE = 0.01
"""The share of a new micro-batch in the moving average of the real images' distances."""


def pair_distances(maps: Sequence[Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of the squared distances of all pairs of one label (both orders), float32
    (maps,), for each of the maps (n, …); and the number of these pairs.

    `labels` int64 (n,); None: all pairs.
    """
    count = len(maps[0])
    pairs = ~torch.eye(count, dtype=torch.bool, device=maps[0].device)
    if labels is not None:
        pairs &= labels[:, None] == labels
    sums = []
    for some in maps:
        rows = some.float().flatten(1)
        rows = rows - rows.detach().mean(dim=0)  # so that the differences below lose few digits
        squares = rows.square().sum(dim=1)
        sums.append(((squares[:, None] + squares - 2 * rows @ rows.T) * pairs).sum())
    return torch.stack(sums), pairs.sum()


class FeatureSpread:
    """Compares the distances of generated images with those of real ones, of one label if the
    generator `has_labels`.

    The state's `scalars` hold the moving average w (maps,) of the real images' mean squared
    distance over pairs, for each of the maps of features, over all processes. It begins at 0.
    """

    def __init__(self, has_labels: bool, ranks: Distributed) -> None:
        self._has_labels, self._ranks = has_labels, ranks

    def _distances(self, maps: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        return pair_distances(maps, labels if self._has_labels else None)

    def follow(self, scalars: Scalars, maps: Sequence[Tensor], labels: Tensor) -> None:
        """Move w towards the distances of a micro-batch of real images."""
        with torch.no_grad():
            sums, count = self._distances(maps, labels)
            found = torch.cat([sums, count.float()[None]])
            self._ranks.all_reduce_sum([found])
            before = scalars.setdefault(_NAME, torch.zeros_like(sums))
            new = before.lerp(found[:-1] / found[-1].clamp_min(1), _RATE)
            # without a pair, or in an fp16 step that overflows, there is nothing to follow
            before.copy_(torch.where((found[-1] > 0) & new.isfinite(), new, before))

    def lacking(
        self, scalars: Scalars, maps: Sequence[Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean over the maps of max(0, 1 − d/w)², where d is the mean squared distance
        of a micro-batch of generated images, and the mean of d/w (1: as far apart as real ones).

        Images of different latents are kept apart up to a bound as in Yang et al. 2019 (section 3);
        here by features of a frozen network, and the bound is the distance of real images. Without
        a pair, and before real images were seen, the term is 0.
        """
        sums, count = self._distances(maps, labels)
        wanted = scalars.setdefault(_NAME, torch.zeros_like(sums))
        known = (count > 0) & (wanted > 0)
        ratio = torch.where(known, sums / count.clamp_min(1) / wanted.clamp_min(1e-12), 1)
        return (1 - ratio).relu().square().mean(), ratio.detach().mean()

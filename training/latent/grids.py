"""Grids of images: truncation, interpolation, style mixing, directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.grid import Pixels, make_grid
from training.latent.interpolation import slerp
from training.latent.sefa import Directions, move
from training.latent.space import LatentSpace


def truncation_grid(
    space: LatentSpace, ws: Tensor, labels: Tensor, psis: Sequence[float]
) -> Pixels:
    """One row per psi, one column per image."""
    every = torch.cat([space.truncate(ws, psi) for psi in psis])
    return make_grid(space.generate(every, labels.repeat(len(psis))), len(ws))


def mix(space: LatentSpace, coarse: Tensor, fine: Tensor, layer: int, share: float = 0.5) -> Tensor:
    """Style mixing (Karras et al. 2019, section 3.1): ws (n, num_ws, w_dim) with the first `layer`
    layers of `coarse` and the others of `fine`.

    A generator without a mapping has no layers to mix: the result is the interpolation at `share`.
    """
    if not space.has_mapping:
        if share in (0.0, 1.0):
            return fine if share else coarse
        return slerp(coarse, fine, torch.tensor([share], device=coarse.device))[0]
    return torch.cat([coarse[:, :layer], fine[:, layer:]], dim=1)


def style_mixing_grid(
    space: LatentSpace, rows: Tensor, columns: Tensor, label: Tensor, layer: int, share: float = 0.5
) -> Pixels:
    """Return a grid of mixtures: the sources `rows` (coarse) on the left, `columns` (fine) on top;
    the corner is empty. `label` (1,) applies to all."""
    pairs = [
        mix(space, row[None], column[None], layer, share) for row in rows for column in columns
    ]
    every = torch.cat([columns, *(
        torch.cat([row[None], *pairs[number * len(columns) : (number + 1) * len(columns)]])
        for number, row in enumerate(rows)
    )])  # fmt: skip
    images = space.generate(every, label.expand(len(every)))
    corner = np.zeros((1, *images.shape[1:]), dtype=np.uint8)
    return make_grid(np.concatenate([corner, images]), len(columns) + 1)


def direction_grid(
    space: LatentSpace, ws: Tensor, label: Tensor, found: Directions, amounts: Sequence[float]
) -> Pixels:
    """One row per image and direction, one column per amount."""
    every = torch.cat(
        [
            move(one[None], found, number, amount)
            for number in range(len(found.vectors))
            for one in ws
            for amount in amounts
        ]
    )
    return make_grid(space.generate(every, label.expand(len(every))), len(amounts))

"""Clusters of similar images, whose numbers serve as labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.contract import UserError, count_of

_ASKED = "clusters:"
_LEAST = 4
"""Images per cluster that are needed: smaller clusters say nothing."""
_SIDE = 16
"""Side in pixels to which images are reduced."""
_RESTARTS = 20
"""Number of random starts, of which the best one counts."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of images with `centres` float64 (k, channels·16·16)."""

    centres: NDArray[np.float64]

    def nearest(self, images: Tensor) -> NDArray[np.int64]:
        """Return the numbers (n,) of the nearest centres of images (n, channels, height, width)."""
        return torch.cdist(_reduced(images), torch.from_numpy(self.centres)).argmin(1).numpy()


def count_clusters(label: str) -> int:
    """Return the number of clusters that `data.label` asks for, 0 for labels from elsewhere."""
    return int(label.removeprefix(_ASKED)) if label.startswith(_ASKED) else 0


def find_clusters(images: Tensor, count: int) -> Clusters:
    """Find `count` clusters of images (n, channels, height, width), reduced to 16 px: by k-means
    (Lloyd 1982), the best of 20 starts from random images. The same images have the same clusters.

    Raises:
        UserError: there are fewer than four images per cluster.
    """
    from scipy.cluster.vq import kmeans2, vq  # most runs do not need it

    if len(images) < _LEAST * count:
        raise UserError(
            f"{count_of(len(images), 'image')} for {count} clusters, which need {_LEAST} each"
        )
    pixels, random = _reduced(images).numpy(), np.random.default_rng(0)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal images, some clusters have none
        for _ in range(_RESTARTS):
            start = pixels[random.permutation(len(pixels))[:count]]
            found.append(kmeans2(pixels, start, minit="matrix")[0])
    return Clusters(min(found, key=lambda some: float(np.square(vq(pixels, some)[1]).sum())))


def _reduced(images: Tensor) -> Tensor:
    return adaptive_avg_pool2d(images.double(), _SIDE).flatten(1)

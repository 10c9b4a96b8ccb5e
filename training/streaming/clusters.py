"""Clusters of similar images, whose numbers serve as labels."""

from __future__ import annotations

import base64
import binascii
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.contract import UserError, count_of

EXAMINED = 1024
"""Number of images in which clusters are found."""
_LEAST = 4
"""Images per cluster that are needed: smaller clusters say nothing."""
_SIDE = 16
"""Side in pixels to which images are reduced."""
_RESTARTS = 20
"""Number of random starts, of which the best one counts."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of images with `centres` uint8 (k, channels·16·16)."""

    centres: NDArray[np.uint8]

    def nearest(self, images: Tensor) -> NDArray[np.int64]:
        """Return the numbers (n,) of the nearest centres of images (n, channels, height, width)."""
        return torch.cdist(reduce_images(images).flatten(1), self._points).argmin(1).numpy()

    @cached_property
    def _points(self) -> Tensor:  # once, not for each image that is read
        return torch.from_numpy(self.centres).double()

    def to_text(self) -> str:
        """Return the centres as text, which `parse_clusters` reads."""
        return base64.b64encode(self.centres.tobytes()).decode()


def parse_clusters(text: str, count: int, channels: int) -> Clusters:
    """Read `count` centres of images with these channels.

    Raises:
        UserError: the text is something else.
    """
    try:
        data = base64.b64decode(text, validate=True)
        centres = np.frombuffer(data, np.uint8).reshape(count, channels * _SIDE * _SIDE)
    except (binascii.Error, ValueError):
        raise UserError(
            f"config.json: dataset.clusters: not the centres of {count} clusters; restore the file"
        ) from None
    return Clusters(centres.copy())


def find_clusters(images: Tensor, count: int) -> Clusters:
    """Find `count` clusters of images (n, channels, height, width), reduced to 16 px: by k-means
    (Lloyd 1982), the best of 20 starts from random images. Centres are rounded to gray levels.

    Raises:
        UserError: there are fewer than four images per cluster.
    """
    from scipy.cluster.vq import kmeans2, vq  # most runs do not need it

    if len(images) < _LEAST * count:
        raise UserError(
            f"data.label: {count_of(len(images), 'image')} for {count} clusters, which need "
            f"{_LEAST} each; ask for fewer, or --data.label none"
        )
    pixels, random = reduce_images(images).flatten(1).numpy(), np.random.default_rng(0)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal images, some clusters have none
        for _ in range(_RESTARTS):
            start = pixels[random.permutation(len(pixels))[:count]]
            found.append(kmeans2(pixels, start, minit="matrix")[0])
    best = min(found, key=lambda some: float(np.square(vq(pixels, some)[1]).sum()))
    return Clusters(best.round().astype(np.uint8))


def reduce_images(images: Tensor) -> Tensor:
    """Return images (n, channels, height, width) reduced to float64 (n, channels, 16, 16)."""
    return adaptive_avg_pool2d(images.float(), _SIDE).double()

"""The training images nearest to an image: is it new, or a copy?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pipeline.contract import UserError
from training.config import DataOptions
from training.grid import Pixels
from training.pretrained.inference import TrainedGenerator
from training.streaming.dataset import ShardDataset, open_shard_dataset
from training.streaming.openers import default_opener
from training.streaming.samples import SampleCache, iter_placed_batches, no_readable_image
from training.transparency import composite

SIDE = 32
Describe = Callable[[Tensor], Tensor]


def small_pixels(images: Tensor) -> Tensor:
    """Images (n, channels, h, w) in [-1, 1] as vectors: reduced to at most 32 px per side and
    scaled so that distances are root mean squares in units of the range."""
    height = min(SIDE, images.shape[2])
    width = max(1, round(images.shape[3] * height / images.shape[2]))
    small = interpolate(images, (height, width), mode="area") / 2
    vectors = small.flatten(1)
    return vectors / math.sqrt(vectors.shape[1])


@dataclass(frozen=True)
class Neighbours:
    """Images of a dataset, embedded as vectors (n, d), and their places (shard, member) in it;
    `options` state how its shards are fetched."""

    source: ShardDataset
    vectors: Tensor
    places: list[tuple[int, int]]
    options: DataOptions = field(default_factory=DataOptions)

    def nearest(self, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return distances and indices (n, count) of the nearest images to each of `vectors`."""
        exact = "donot_use_mm_for_euclid_dist"  # the fast method returns 0.02 for equal ones
        apart = torch.cdist(vectors, self.vectors, compute_mode=exact)
        found = apart.topk(min(count, len(self.vectors)), dim=1, largest=False)
        return found.values, found.indices

    def images(self, numbers: list[int]) -> Pixels:
        """Return the images with these indices, uint8 (n, height, width, channels)."""
        source = self.source
        shape = (len(numbers), source.height, source.width, source.channels)
        pixels = np.empty(shape, dtype=np.uint8)
        samples = SampleCache(source, None, default_opener(source, self.options))
        try:
            for row, number in enumerate(numbers):
                samples.read(*self.places[number], pixels[row])
        finally:
            samples.shards.close()
        return pixels


def in_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def as_images(pixels: Pixels) -> Tensor:
    """uint8 (n, height, width, channels) → float32 (n, channels, height, width) in [-1, 1]."""
    return in_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))


@torch.no_grad()
def embed_all(
    source: ShardDataset,
    describe: Describe,
    options: DataOptions | None = None,
    seconds: float = math.inf,
) -> Neighbours:
    """Read the whole dataset once and embed it, or as much of it as can be read in `seconds`;
    `options` state how shards are fetched, and whether damaged images may be skipped.

    Raises:
        UserError: an image cannot be read, or there are none.
    """
    options, end = options or DataOptions(), time.monotonic() + seconds
    vectors: list[Tensor] = []
    places: list[tuple[int, int]] = []
    for images, _, some in iter_placed_batches(source, source.index.nsamples, options):
        vectors.append(describe(in_range(images)).cpu())
        places += some
        if time.monotonic() > end:
            break
    if not vectors:
        raise no_readable_image(source)
    return Neighbours(source, torch.cat(vectors), places, options)


def open_training_shards(
    trained: TrainedGenerator,
    location: str | None = None,
    dataset: dict[str, Any] | None = None,
    options: DataOptions | None = None,
) -> ShardDataset:
    """Open the shards that a generator was trained on, or those at `location`, at its size;
    `dataset` are the properties of a second set, which is opened in place of the first. `options`
    state how samples are read (None: as in its training).

    Raises:
        UserError: they do not exist, or have another shape.
    """
    where = location or (dataset or trained.dataset).get("location", "")
    if not where:
        raise UserError(f"{trained.folder}: the location of its shards is unknown; set --shards")
    shape = trained.shape
    known = trained.dataset.get("clusters", "")
    options = options or trained.config.data
    return open_shard_dataset(where, shape.height, options, shape, known)


def embed_training_images(
    trained: TrainedGenerator, location: str | None, describe: Describe
) -> Neighbours:
    """Embed the images that a generator was trained on, or those at `location`, fetched as in its
    training: without damaged ones if it left them out.

    Raises:
        UserError: as in `open_training_shards` and `embed_all`.
    """
    source = open_training_shards(trained, location)
    return embed_all(source, describe, trained.config.data)


def choose_embedding(by: str, device: torch.device) -> Describe:
    """Return the embedding of images (n, channels, h, w) in [-1, 1] as vectors (n, d): their
    `pixels`, or `features` of the metrics' extractor (RGBA over white), of length 1 (distances
    are then from 0 to 2)."""
    if by == "pixels":
        return small_pixels
    from training.extractor import load_extractor

    extractor = load_extractor(device)
    return lambda images: normalize(extractor(composite(images.to(device), 1.0)), dim=1)

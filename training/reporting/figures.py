"""Figures of the report beside the sample grids: interpolations, and nearest training images."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from pipeline.contract import UserError, local_path
from training.config import DataOptions
from training.grid import Pixels, make_grid, shown
from training.latent.neighbours import Neighbours, as_images, embed_all, in_range, small_pixels
from training.latent.route import find_route
from training.latent.space import LatentSpace
from training.latent.timing import row_positions
from training.streaming.dataset import ShardDataset
from training.streaming.samples import iter_image_batches

WAYS, STEPS = 4, 8
PAIRS, PAIRS_PER_ROW = 16, 4
SAMPLES, NEAREST = 6, 5
EVERY_SECONDS = 300.0
READING_SECONDS = 5.0
"""Reading real images stops after this time: the files that follow the report wait for it."""


def interpolation(space: LatentSpace, latents: torch.Tensor, labels: torch.Tensor) -> Pixels | None:
    """Rows of interpolations between pairs of the first latents (n, z_dim): in w if there is a
    mapping, otherwise spherical in z. A row has the label of its first image. None of one latent.
    """
    if len(latents) < 2:
        return None
    pairs = range(0, min(2 * WAYS, len(latents) - 1), 2)
    positions = row_positions(1, STEPS)
    images = [
        find_route(space, latents[one : one + 2], labels[one : one + 2]).images(positions)
        for one in pairs
    ]
    return shown(make_grid(np.concatenate(images), STEPS))


@torch.no_grad()
def reconstructions(space: LatentSpace, images: torch.Tensor, labels: torch.Tensor) -> Pixels:
    """Pairs of a real image and G(E(x)): images float32 (n, channels, h, w) in [-1, 1], labels
    int64 (n,)."""
    rebuilt = space.generate(space.encode(images, labels), labels)
    real = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    pairs = np.stack([real.cpu().numpy(), rebuilt], axis=1)
    return shown(make_grid(pairs.reshape(-1, *rebuilt.shape[1:]), 2 * PAIRS_PER_ROW))


class RealNeighbours:
    """Finds the nearest real images of samples, by pixels at 32 px, among the first images of a
    dataset: as many as can be read in `READING_SECONDS`, without damaged ones. `count` is their
    number."""

    def __init__(self, source: ShardDataset) -> None:
        self._source = source
        self._found: Neighbours | None = None

    @property
    def available(self) -> bool:
        """Return True if the shards are local files: none are fetched for a figure."""
        return all(local_path(location) is not None for location in self._source.locations)

    @property
    def count(self) -> int:
        return len(self._read().places)

    def _read(self) -> Neighbours:
        if self._found is None:
            self._found = Neighbours(self._source, torch.empty(0, 0), [])
            with suppress(UserError):  # no image can be read
                options = DataOptions(skip_corrupt=True)
                self._found = embed_all(self._source, small_pixels, options, READING_SECONDS)
        return self._found

    def sheet(self, pixels: Pixels) -> Pixels:
        """One row for each of the first samples uint8 (n, h, w, c): the sample, then its nearest
        images."""
        some = pixels[:SAMPLES]
        nearest_pool = self._read()
        _, places = nearest_pool.nearest(small_pixels(as_images(some)), NEAREST)
        found = [
            np.concatenate([image[None], nearest_pool.images(row)])
            for image, row in zip(some, places.tolist(), strict=True)
        ]
        return shown(make_grid(np.concatenate(found), len(found[0])))


@dataclass(frozen=True)
class ReportFigures:
    """Images uint8 (height, width, channels). `nearest` is None without local shards that can be
    read; otherwise neighbours are among the first `nearest_pool` images of the dataset. `rebuilt`
    are real images with their reconstructions, if there are local shards and an encoder.
    `translations` are those of both sets of a run that translates images, which has no other
    figure."""

    interpolations: Pixels | None = None
    nearest: Pixels | None = None
    nearest_pool: int = 0
    rebuilt: Pixels | None = None
    translations: Pixels | None = None


class FigureMaker:
    """Makes the figures again when they are old, but not for every report."""

    def __init__(self, source: ShardDataset) -> None:
        self._source, self._real = source, RealNeighbours(source)
        self._make: Callable[[], ReportFigures] | None = None
        self._at = 0.0

    def latest(
        self, space: LatentSpace, latents: torch.Tensor, labels: torch.Tensor, fresh: bool
    ) -> Callable[[], ReportFigures]:
        """Generate the images of a generator's first latents (n, z_dim), new ones if `fresh`, and
        return a function that makes the figures of them; another thread may call it."""
        if self._make is None or fresh or time.monotonic() - self._at > EVERY_SECONDS:
            self._make = cache(self._figures(space, latents, labels))
            self._at = time.monotonic()
        return self._make

    def _figures(
        self, space: LatentSpace, latents: torch.Tensor, labels: torch.Tensor
    ) -> Callable[[], ReportFigures]:
        rows = interpolation(space, latents, labels)
        if not self._real.available:
            return lambda: ReportFigures(rows)
        samples = space.generate(space.map(latents[:SAMPLES], labels[:SAMPLES]), labels[:SAMPLES])
        rebuilt = None if space.encoder is None else self._rebuilt(space)
        return lambda: ReportFigures(
            rows, self._real.sheet(samples) if self._real.count else None, self._real.count, rebuilt
        )

    def _rebuilt(self, space: LatentSpace) -> Pixels | None:
        """Reconstruct the first images of the dataset that can be read."""
        found = list(iter_image_batches(self._source, PAIRS, DataOptions(skip_corrupt=True)))
        if not found:
            return None
        images, labels = found[0]
        real, known = in_range(images), torch.from_numpy(labels).clamp(min=0)
        device = space.device
        return reconstructions(space, real[:PAIRS].to(device), known[:PAIRS].to(device))

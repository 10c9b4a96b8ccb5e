"""Features of a generator's images, the same in every evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import DataOptions
from training.grid import generate_images
from training.metrics.distances import Features
from training.metrics.feature_networks import BATCH, FeatureNetwork
from training.metrics.real import Progress, no_progress
from training.networks import Generator
from training.seeds import derive
from training.streaming.dataset import ShardDataset
from training.streaming.samples import iter_image_batches
from training.techniques import draw_latents


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Make random numbers in the block (noise, dropout at test time) follow from `seed`, without
    effect on the global state."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def draw_inputs(
    latent: str, z_dim: int, labels: NDArray[np.int64], count: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw latents (count, z_dim) and labels (count,) for an evaluation, the same on every device.

    Labels are drawn from `labels`, those of the real images, so they have the same frequencies.
    """
    random = torch.Generator().manual_seed(derive(seed, "evaluation"))
    latents = draw_latents(latent, count, z_dim, random, torch.device("cpu"))
    chosen = torch.randint(len(labels), (count,), generator=random)
    return latents.to(device), torch.from_numpy(labels)[chosen].to(device)


def fake_features(
    generator: Generator,
    latent: str,
    labels: NDArray[np.int64],
    network: FeatureNetwork,
    count: int,
    device: torch.device,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Features:
    """Return features (count, d) of images of the generator, which is in evaluation mode on
    `device`."""
    latents, which = draw_inputs(latent, generator.z_dim, labels, count, seed, device)
    rows = []
    with isolated_rng(derive(seed, "drawing"), device):
        for start in range(0, count, BATCH):
            some = slice(start, start + BATCH)
            pixels = torch.from_numpy(generate_images(generator, latents[some], which[some], BATCH))
            rows.append(network.features(pixels.permute(0, 3, 1, 2)))
            progress(min(start + BATCH, count), count)
    return np.concatenate(rows)


def translated_features(
    generator: Generator,
    source: ShardDataset,
    network: FeatureNetwork,
    count: int,
    options: DataOptions,
    progress: Progress = no_progress,
) -> Features:
    """Return features (n, d) of the translations of the first `count` images of a set, or of all if
    there are fewer, by a generator in evaluation mode.

    Raises:
        DamagedShard: unless `options` allow to skip damaged shards.
    """
    count = min(count, source.index.nsamples)
    device, rows, done = next(generator.parameters()).device, [], 0
    for images, labels in iter_image_batches(source, count, options):
        floats = (images.float() / 127.5 - 1).to(device)
        pixels = generate_images(generator, floats, torch.from_numpy(labels).to(device), BATCH)
        rows.append(network.features(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        done += len(images)
        progress(done, count)
    return np.concatenate(rows)

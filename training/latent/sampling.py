"""Samples of a generator: by image number, or from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.latent.cli import latents_and_labels
from training.pretrained.inference import TrainedGenerator
from training.techniques import fixed_latents


def sample_ws(
    trained: TrainedGenerator,
    count: int = 1,
    numbers: Sequence[int] = (),
    label: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return ws (n, num_ws, w_dim) and labels (n,) of the image numbers, or, without any, of
    `count` latents drawn with the seed.

    Without a label, image i has class i modulo the number of classes.
    """
    space = trained.space
    if numbers:
        latents, labels = latents_and_labels(trained, numbers, label or 0)
    else:
        z_dim = trained.generator.z_dim
        latents = fixed_latents(trained.latent, count, z_dim, seed, space.device)
        labels = torch.full((count,), label or 0, device=space.device)
    if label is None:
        labels = torch.arange(len(latents), device=space.device) % max(1, trained.classes)
    torch.manual_seed(seed)  # dropout that works when sampling
    return space.map(latents, labels), labels

"""Translation of images by the two generators of a method that learns from two sets."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.config import Config
from training.grid import Pixels, generate_images, make_grid
from training.networks import Generator
from training.streaming.dataset import ShardDataset
from training.streaming.openers import sample_options
from training.streaming.samples import iter_image_batches

Direction = Literal["a-to-b", "b-to-a"]
DIRECTIONS: tuple[Direction, Direction] = ("a-to-b", "b-to-a")
STEPS = 3
"""Images of a row per direction: real, translated, and translated back."""


def translate(generator: Generator, images: Tensor, batch: int = 16) -> Pixels:
    """Translate images float32 (n, channels, h, w) in [-1, 1], on the generator's device: uint8 (n,
    h, w, channels)."""
    return generate_images(generator, images, images.new_zeros(len(images)).long(), batch)


def as_floats(pixels: Pixels, device: torch.device) -> Tensor:
    """uint8 (n, h, w, channels) → float32 (n, channels, h, w) in [-1, 1] on the device."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).to(device)


def there_and_back(there: Generator, back: Generator, images: Pixels) -> Pixels:
    """Return each image uint8 (n, h, w, channels), its translation and the translation of that:
    (n, 3, h, w, channels)."""
    device = next(there.parameters()).device
    translated = translate(there, as_floats(images, device))
    return np.stack([images, translated, translate(back, as_floats(translated, device))], axis=1)


def translation_grid(forward: Generator, back: Generator, a: Pixels, b: Pixels) -> Pixels:
    """Return a grid whose rows are an image of set A, its translation to B, that translated back,
    and the same for an image of set B; `forward` translates A to B. Images are uint8 (n, h, w,
    channels)."""
    both = there_and_back(forward, back, a), there_and_back(back, forward, b)
    rows = np.concatenate(both, axis=1)
    return make_grid(rows.reshape(-1, *rows.shape[2:]), 2 * STEPS)


def first_images(source: ShardDataset, count: int, config: Config) -> tuple[Pixels, Pixels]:
    """Return the first images of both sets for a grid of `count` images, equally many of each:
    uint8 (n, h, w, channels).

    Raises:
        DamagedShard: a shard cannot be read, and the options do not allow to skip it.
    """
    rows = max(1, count // (2 * STEPS))
    found = [_first(one, rows, config) for one in source.sets]
    least = min(map(len, found))
    return found[0][:least], found[1][:least]


def _first(source: ShardDataset, count: int, config: Config) -> Pixels:
    count = min(count, source.index.nsamples)
    options = sample_options(source, config.data)
    batches = [images for images, _ in iter_image_batches(source, count, options)]
    shape = (0, source.channels, source.height, source.width)
    images = torch.cat(batches) if batches else torch.empty(shape, dtype=torch.uint8)
    pixels: Pixels = images.permute(0, 2, 3, 1).numpy()
    return pixels

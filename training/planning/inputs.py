"""What `--preset auto` chooses from: the dataset, the machine and the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from training.config import Config, DataOptions
from training.data import Batch
from training.image_shape import ImageShape
from training.machine.allocator import retain_freed_memory
from training.machine.device import choose_device, is_bf16_fast
from training.machine.distributed import world_size
from training.metrics.real import iter_image_batches
from training.planning.forecast import time_steps
from training.planning.threads import set_threads
from training.state import new_state
from training.step import Step
from training.streaming.dataset import ShardDataset

PLAIN_SAMPLE = 256
"""Number of images that `plain_border_fraction` examines."""
_PLAIN_SPREAD = 15.0
"""Maximum standard deviation of a plain border's pixels, in gray levels (of 255)."""


@dataclass(frozen=True)
class AutoInputs:
    """The inputs of a choice.

    `height` and `width` are the maximum size of the images to train on; `labels` their number (0:
    none, or some images have none); `plain` the fraction of images with a plain border, from 0 to 1
    (`plain_border_fraction`); `device` cpu, cuda or mps, with fast bfloat16 (`bf16`) or not;
    `hours` the time limit (0: none); `smooth` the fraction of pixels in smooth surroundings
    (`smooth_fraction`); `processes` the number of processes that train; `pace` the
    measured speed of this machine as a multiple of the table's (None: not measured).
    """

    samples: int
    height: int
    width: int
    labels: int
    plain: float
    device: str
    bf16: bool
    hours: float
    processes: int = 1
    smooth: float = 0.0
    pace: float | None = None


def plain_border_fraction(images: Tensor) -> float:
    """Return the fraction of images uint8 (n, c, h, w) with a plain border: its pixels, to a
    depth of 1/16 of the size, deviate from their mean by at most 15 gray levels, averaged over
    the channels."""
    height, width = images.shape[2:]
    rows, columns = max(1, height // 16), max(1, width // 16)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[rows : height - rows, columns : width - columns] = True
    border = images.float()[:, :, ~inside]
    return float((border.std(dim=2).mean(dim=1) <= _PLAIN_SPREAD).float().mean())


def smooth_fraction(images: Tensor) -> float:
    """Return the fraction of pixels of images uint8 (n, c, h, w) whose 3×3 surroundings differ by
    at most one gray level. Photographs have noise almost everywhere (measured: 0.00 of garments),
    rendered images and cut out objects none on their background (0.51 and 0.41)."""
    gray = images.float().mean(dim=1, keepdim=True)
    highest, lowest = max_pool2d(gray, 3, 1), -max_pool2d(-gray, 3, 1)
    return float((highest - lowest <= 1).float().mean())


def _first_images(source: ShardDataset, options: DataOptions) -> tuple[Tensor, bool]:
    """Read images uint8 (n, c, h, w), and whether each has a label. Fetched shards are cached
    separately from the training's cache, which each process has for itself."""
    count = min(PLAIN_SAMPLE, source.index.nsamples)
    with TemporaryDirectory(prefix="shellgan-") as folder:
        found = iter_image_batches(source, count, replace(options, cache=folder))
        parts = [(images, bool((labels >= 0).all())) for images, labels in found]
    return torch.cat([images for images, _ in parts]), all(labelled for _, labelled in parts)


def plain_fraction(source: ShardDataset, options: DataOptions) -> float:
    """Return `plain_border_fraction` of the first images."""
    return plain_border_fraction(_first_images(source, options)[0])


def measure_speed(config: Config, shape: ImageShape) -> float:
    """Measure steps of `config` on black images of this shape, on the number of CPU threads that a
    run would choose: thousand images per hour."""
    device = choose_device(config.device)
    step = Step(config, new_state(config, shape, device), device)
    size = (config.batch, shape.channels, shape.height, shape.width)
    labels = torch.zeros(config.batch, dtype=torch.int64)
    batches = [Batch(torch.zeros(size, dtype=torch.uint8), labels)] * config.n_critic
    threads = torch.get_num_threads()
    if device.type == "cpu":
        retain_freed_memory()
        set_threads(config, None)
    try:
        return 3600 / time_steps(lambda: step(batches), config, device)
    finally:
        torch.set_num_threads(threads)


def gather_inputs(source: ShardDataset, asked: Config) -> AutoInputs:
    """Gather the inputs for the dataset at `source`, the machine and the time in `asked`.

    Raises:
        UserError: the images cannot be read, or the device does not exist.
    """
    device = choose_device(asked.device)
    images, labelled = _first_images(source, asked.data)
    return AutoInputs(
        source.index.nsamples, source.height, source.width, source.classes if labelled else 0,
        plain_border_fraction(images), device.type, is_bf16_fast(device), asked.max_hours,
        world_size(), smooth_fraction(images),
    )  # fmt: skip

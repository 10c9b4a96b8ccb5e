"""What `--preset auto` chooses from: the dataset, the machine and the time."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from pipeline.contract import UserError
from training.config import Config, DataOptions
from training.data import Batch
from training.image_shape import ImageShape
from training.machine.allocator import retain_freed_memory
from training.machine.device import choose_device, is_bf16_fast
from training.machine.distributed import world_size
from training.planning.forecast import time_steps
from training.planning.threads import set_threads
from training.state import new_state
from training.step import Step
from training.streaming.clusters import find_clusters
from training.streaming.dataset import ShardDataset
from training.streaming.samples import first_images

PLAIN_SAMPLE = 256
"""Number of images that `plain_border_fraction` examines."""
PLAIN = 0.5
"""Below this fraction of plain images, backgrounds are reported as uneven."""
SMOOTH = 0.2
"""From this fraction of smooth pixels on, images have no noise."""
TELLING = 0.4
"""From this part of the pixels' variance on, labels tell images apart: 0.58 of drawn shells of ten
families, 0.42 of drawn prints of four subjects, 0.11 of garments cut out and 0.04 of photographs of
garments in five classes."""
FEW_KINDS = 0.57
"""From this part of the variance that clusters explain on, images without noise are of few kinds:
0.64 of drawn shells; 0.47 of drawn prints, 0.46 of garments cut out, 0.36 of emoji."""
CLUSTERS = 16
"""Number of clusters, of drawings without labels."""
FLAT = 0.2
"""From this fraction of images with flat surfaces on, images without noise are drawings: 0.72 of
emoji and 0.24 to 0.50 of clip art of four subjects (0.15 of vehicles, many in black and white), but
0.00 to 0.08 of photographs of four subjects, cut out."""
_PLAIN_SPREAD = 15.0
"""Maximum standard deviation of a plain border's pixels, in gray levels (of 255)."""
_ROUNDING = 1e-6
"""Variances up to this are those of equal images."""
_SMALL = 32
"""Side in pixels to which images are reduced for the variance of their pixels."""
_FLAT_SIZE = 64
"""Side in pixels to which larger images are reduced for `flat_fraction`."""
_SURROUNDINGS = 3
"""Side in pixels of a pixel's surroundings."""
_FLAT_PART = 0.03
"""Above this fraction of pixels in smooth surroundings, objects have flat surfaces."""
_BLACK, _WHITE = 4, 251
"""Gray levels up to which, and from which on, pixels count as clipped."""
_APART = 12
"""From this deviation in gray levels on, a pixel does not belong to its image's background."""


@dataclass(frozen=True)
class AutoInputs:
    """The inputs of a choice.

    `height` and `width` are the maximum size of the images to train on; `labels` the number of
    their labels (0: none, or some images have none: `some_unlabelled`); `plain` the fraction of
    images with a plain border, from 0 to 1 (`plain_border_fraction`); `device` cpu, cuda or mps,
    with fast bfloat16 (`bf16`) or not; `hours` and `kimg` the limits of time and of thousand images
    (0: none); `smooth` the fraction of pixels in smooth surroundings (`smooth_fraction`), and
    `flat` that of images with flat surfaces (`flat_fraction`); `telling` the part of the pixels'
    variance that labels explain (`explained_by_labels`), and `clustered` the part that clusters
    explain (`explained_by_clusters`); `processes` the number of processes that train; `pace` the
    measured speed of this machine as a multiple of the table's (None: not measured), and
    `alone` the measured value of `AutoRow.alone` (0: not measured).
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
    flat: float = 0.0
    pace: float | None = None
    alone: float = 0.0
    telling: float = 0.0
    clustered: float = 0.0
    some_unlabelled: bool = False
    kimg: float = 0.0

    @property
    def without_noise(self) -> bool:
        """True for rendered images and for objects that were cut out."""
        return self.smooth >= SMOOTH

    @property
    def labels_tell(self) -> bool:
        """True for images whose labels say what they look like, mostly drawings."""
        return self.labels > 1 and self.telling >= TELLING

    @property
    def few_kinds(self) -> bool:
        """True for images of a few kinds that look alike each, mostly drawings, with labels that
        say so or without."""
        return self.labels_tell or (self.without_noise and self.clustered >= FEW_KINDS)

    @property
    def drawn(self) -> bool:
        """True for drawings: images of a few kinds, or without noise even on objects."""
        return self.few_kinds or (self.without_noise and self.flat >= FLAT)


def plain_border_fraction(images: Tensor) -> float:
    """Return the fraction of images uint8 (n, c, h, w) with a plain border: its pixels, to a
    depth of 1/16 of the size, deviate from their mean by at most 15 gray levels, averaged over
    the channels."""
    deviation = _border(images.float()).std(dim=2).mean(dim=1)
    return float((deviation <= _PLAIN_SPREAD).float().mean())


def _border(images: Tensor) -> Tensor:
    """Return the pixels (n, c, pixels) of the border of images (n, c, h, w), to a depth of 1/16 of
    the size."""
    height, width = images.shape[2:]
    rows, columns = max(1, height // 16), max(1, width // 16)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[rows : height - rows, columns : width - columns] = True
    return images[:, :, ~inside]


def smooth_fraction(images: Tensor) -> float:
    """Return the fraction of pixels of images uint8 (n, c, h, w) whose 3×3 surroundings differ by
    at most one gray level. Photographs have noise almost everywhere (measured: 0.00 of garments),
    rendered images and cut out objects none on their background (0.51 and 0.41)."""
    if min(images.shape[2:]) < _SURROUNDINGS:
        return 0.0
    return float(_are_smooth(images.float()).float().mean())


def flat_fraction(images: Tensor) -> float:
    """Return the fraction of images uint8 (n, c, h, w) whose objects have flat surfaces, as
    drawings have: the surroundings of more than 3 % of the objects' pixels are smooth as in
    `smooth_fraction`. Objects are what deviates from the median of their image's border by 12 gray
    levels in any channel, but not what is clipped to black or white, which is flat in photographs
    too. Larger images are reduced to 64 px."""
    height, width = images.shape[2:]
    scale = min(1.0, _FLAT_SIZE / max(height, width))
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    if min(size) < _SURROUNDINGS:
        return 0.0
    reduced = adaptive_avg_pool2d(images.float(), size)
    background = _border(reduced).median(dim=2).values[:, :, None, None]
    color = reduced[:, :3]
    is_clipped = (color <= _BLACK).all(dim=1) | (color >= _WHITE).all(dim=1)
    is_object = (reduced - background).abs().amax(dim=1) >= _APART
    objects = (is_object & ~is_clipped)[:, 1:-1, 1:-1]
    flat = (_are_smooth(reduced) & objects).sum(dim=(1, 2))
    return float((flat > _FLAT_PART * objects.sum(dim=(1, 2))).float().mean())


def _are_smooth(images: Tensor) -> Tensor:
    """Return whether the 3×3 surroundings of the inner pixels of images (n, c, h, w) differ by at
    most one gray level: bool (n, h − 2, w − 2)."""
    gray = images.mean(dim=1)
    return max_pool2d(gray, _SURROUNDINGS, 1) + max_pool2d(-gray, _SURROUNDINGS, 1) <= 1


def explained_by_labels(images: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the part of the pixels' variance that labels (n,) explain, of images (n, c, h, w)
    reduced to 32 px: ε² (Kelley 1935), which is 0 on average for labels that say nothing; 0 if
    there are not more images than labels."""
    pixels = adaptive_avg_pool2d(images.double(), _SMALL).flatten(1)
    kinds = np.unique(labels)
    if len(kinds) == len(labels):
        return 0.0

    def squares(some: Tensor) -> float:
        return float((some - some.mean(dim=0)).square().sum())

    within = sum(squares(pixels[torch.from_numpy(labels == kind)]) for kind in kinds)
    whole = squares(pixels) / (len(labels) - 1)
    return max(0.0, 1 - within / (len(labels) - len(kinds)) / whole) if whole > _ROUNDING else 0.0


def explained_by_clusters(images: Tensor) -> float:
    """Return the part of the pixels' variance that 16 clusters explain, of images (n, c, h, w): ε²
    (`explained_by_labels`) of one half of the images, in clusters that were found in the other half
    (`find_clusters`); 0 if there are fewer than 128 images."""
    half = len(images) // 2
    try:
        clusters = find_clusters(images[:half], CLUSTERS)
    except UserError:
        return 0.0
    return explained_by_labels(images[half:], clusters.nearest(images[half:]))


def plain_fraction(source: ShardDataset, options: DataOptions) -> float:
    """Return `plain_border_fraction` of the first images."""
    return plain_border_fraction(first_images(source, PLAIN_SAMPLE, options)[0])


def measure_speed(config: Config, shape: ImageShape, alone: float) -> tuple[float, float]:
    """Measure steps of `config` on black images of this shape, on the number of CPU threads that a
    run would choose. `alone` is the part of the time in which a projected discriminator's part on
    pixels trains alone. Return thousand images per hour, and the part of them it sees alone."""
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
        speeds = []
        for share, seen in ((alone, 0), (1 - alone, config.total_kimg * 1000)):
            step.state.seen = int(seen)
            seconds = time_steps(lambda: step(batches), config, device) if share else inf
            speeds.append(3600 / seconds)
        speed = alone * speeds[0] + (1 - alone) * speeds[1]
        return speed, alone * speeds[0] / speed
    finally:
        torch.set_num_threads(threads)


def gather_inputs(source: ShardDataset, asked: Config, kimg: float = 0.0) -> AutoInputs:
    """Gather the inputs for the dataset at `source`, the machine, the time in `asked`, and `kimg`
    thousand images at most (0: as many as the time allows).

    Raises:
        UserError: the images cannot be read, or the device does not exist.
    """
    device = choose_device(asked.device)
    images, labels = first_images(source, PLAIN_SAMPLE, asked.data)
    known = labels if source.labels is None or source.clusters is not None else source.labels
    is_labelled = bool((known >= 0).all())
    count = len(np.unique(known)) if known is source.labels else source.classes
    return AutoInputs(
        source.index.nsamples, source.height, source.width, count if is_labelled else 0,
        plain_border_fraction(images), device.type, is_bf16_fast(device), asked.max_hours,
        world_size(), smooth_fraction(images), flat_fraction(images),
        telling=explained_by_labels(images, labels) if is_labelled else 0.0,
        clustered=explained_by_clusters(images),
        some_unlabelled=not is_labelled and bool((known >= 0).any()), kimg=kimg,
    )  # fmt: skip

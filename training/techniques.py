"""Techniques for stable training: latents, instance noise, packing, targets, replay, unrolling.

`docs/tricks.md` lists all techniques with their options.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from training.seeds import derive
from training.transparency import BLANK, has_alpha


def draw_latents(
    kind: str, count: int, z_dim: int, random: torch.Generator, device: torch.device
) -> Tensor:
    """Draw latents float32 (count, z_dim): `gaussian` N(0, 1), `uniform` in [-1, 1] (Radford
    2016), or on the `sphere` of radius √z_dim."""
    if kind == "uniform":
        return torch.rand(count, z_dim, generator=random, device=device) * 2 - 1
    latents = torch.randn(count, z_dim, generator=random, device=device)
    if kind == "sphere":
        latents = latents * (z_dim**0.5 / latents.norm(dim=1, keepdim=True))
    return latents


def fixed_latents(kind: str, count: int, z_dim: int, seed: int, device: torch.device) -> Tensor:
    """Return the latents of sample grids: the same for a seed on every device."""
    random = torch.Generator().manual_seed(derive(seed, "fixed latents"))
    return draw_latents(kind, count, z_dim, random, torch.device("cpu")).to(device)


def fading(start: float, kimg: float, seen: int) -> float:
    """Return the standard deviation of instance noise (Sønderby 2017; Arjovsky 2017), or the width
    of a blur, after `seen` images: linear from `start` to 0 at `kimg` thousand (0: constant)."""
    return start * max(0.0, 1 - seen / (kimg * 1000)) if kimg else start


def add_noise(images: Tensor, scale: float, random: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `scale`, drawn from `random`, to `images`."""
    if not scale:
        return images
    # drawn in float32, so that the noise does not depend on the precision of the images
    noise = torch.empty_like(images, dtype=torch.float32).normal_(0, scale, generator=random)
    return images + noise.to(images.dtype)


def blur_images(images: Tensor, width: float) -> Tensor:
    """Blur `images` (n, c, h, w) with weights 2^−(x / `width`)², x being the distance in pixels, up
    to three widths (Karras et al. 2021, appendix F); outside of an image is mid-gray (0), or
    transparent (-1)."""
    reach = int(3 * width)
    if not reach:
        return images
    outside = BLANK if has_alpha(images) else 0.0
    images = images - outside
    with torch.autocast(images.device.type, enabled=False):
        steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        row = torch.exp2(-(steps / width).square())
        row, channels = row / row.sum(), images.shape[1]
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            kernel = row.view(shape)
            around = kernel.shape[2] // 2, kernel.shape[3] // 2
            weight = kernel.expand(channels, -1, -1, -1)
            images = conv2d(images, weight, padding=around, groups=channels)
    return images + outside


def pack(images: Tensor, size: int) -> Tensor:
    """Form samples of several images (PacGAN, Lin 2018).

    (n·size, c, h, w) → (n, size·c, h, w): stack neighbouring images along the channels.
    """
    return _regroup(images, len(images) // size, images.shape[1] * size) if size > 1 else images


def unpack(images: Tensor, size: int) -> Tensor:
    """(n, size·c, h, w) → (n·size, c, h, w)."""
    return _regroup(images, len(images) * size, images.shape[1] // size) if size > 1 else images


def _regroup(images: Tensor, count: int, channels: int) -> Tensor:
    last = images.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    regrouped = images.reshape(count, channels, *images.shape[2:])
    return regrouped.contiguous(memory_format=form)


Setting = float | tuple[float, float]
Target = Tensor | float


def draw_target(setting: Setting, count: int, random: torch.Generator) -> Target:
    """Return targets for `count` samples: a number for all, or (n,) uniform between two numbers."""
    if not isinstance(setting, tuple):
        return setting
    low, high = setting
    return low + (high - low) * torch.rand(count, generator=random, device=random.device)


def draw_targets(
    real: Setting, fake: Setting, flip: float, count: int, random: torch.Generator
) -> tuple[Target, Target]:
    """Return the targets of `count` real and `count` fake samples.

    Each target is, with probability `flip`, drawn like one of the other kind.
    """
    targets = draw_target(real, count, random), draw_target(fake, count, random)
    if not flip:
        return targets
    others = draw_target(fake, count, random), draw_target(real, count, random)
    flipped = []
    for target, other in zip(targets, others, strict=True):
        chosen = torch.rand(count, generator=random, device=random.device) < flip
        whole = torch.ones(count, device=random.device)
        flipped.append(torch.where(chosen, other * whole, target * whole))
    return flipped[0], flipped[1]


def for_each_logit(target: Tensor | float, logits: Tensor) -> Tensor | float:
    """Expand a sample's target to each of its logits."""
    return target[:, None] if isinstance(target, Tensor) and logits.ndim == 2 else target


FILLED, IMAGES, LABELS = "filled", "images", "labels"


def replay(
    memory: dict[str, Tensor],
    size: int,
    share: float,
    fake: Tensor,
    labels: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Replace a `share` of `fake` (n, c, h, w), `labels` (n,) by earlier ones (Shrivastava 2017).

    `memory` keeps `size` fakes as float16 between calls and contains all state of the replay; what
    overflowed is kept as 0. It is filled first; from then on, a random `share` of each batch is
    swapped with random entries. If that is not a whole number, one of its neighbours is drawn, so
    that the mean is exact.
    """
    if IMAGES not in memory:
        device = fake.device
        memory[IMAGES] = torch.zeros(size, *fake.shape[1:], dtype=torch.float16, device=device)
        memory[LABELS] = torch.zeros(size, dtype=labels.dtype, device=device)
        memory[FILLED] = torch.zeros((), dtype=torch.int64)
    kept = fake.to(torch.float16).nan_to_num(0.0, 0.0, 0.0)
    filled = int(memory[FILLED])
    if filled < size:
        last = min(size, filled + len(fake))
        memory[IMAGES][filled:last] = kept[: last - filled]
        memory[LABELS][filled:last] = labels[: last - filled]
        memory[FILLED] = torch.tensor(last)
        return fake, labels
    count = int(share * len(fake))
    if rest := share * len(fake) - count:
        count += int(torch.rand((), generator=random, device=fake.device) < rest)
    count = min(count, size)
    here = torch.randperm(len(fake), generator=random, device=fake.device)[:count]
    there = torch.randperm(size, generator=random, device=fake.device)[:count]
    mixed, mixed_labels = fake.clone(), labels.clone()
    mixed[here] = memory[IMAGES][there].to(fake.dtype)
    mixed_labels[here] = memory[LABELS][there]
    memory[IMAGES][there] = kept[here]
    memory[LABELS][there] = labels[here]
    return mixed, mixed_labels


Weights = dict[str, Tensor]
"""Return a network's parameters and buffers by name, for `torch.func.functional_call`."""


def unroll(
    network: nn.Module, loss: Callable[[Weights], Tensor], steps: int, rate: float
) -> Weights:
    """Return the weights of `network` after `steps` of gradient descent on `loss` (Metz 2017,
    eq. 7 to 9).

    They are differentiable functions of the inputs of `loss`. The network itself and its running
    statistics do not change.
    """
    names = [name for name, _ in network.named_parameters()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    values = [weight.detach().requires_grad_(True) for weight in network.parameters()]
    for _ in range(steps):
        total = loss(dict(zip(names, values, strict=True)) | buffers)
        slopes = torch.autograd.grad(total, values, create_graph=True)
        values = [value - rate * slope for value, slope in zip(values, slopes, strict=True)]
    return dict(zip(names, values, strict=True)) | buffers

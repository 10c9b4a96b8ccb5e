"""Projection of a real image into a generator's latent space (Karras et al. 2020a, section 5).

Adam on w, from the mean, with decaying noise and the published learning rate schedule. The noise
inputs of the layers are optimised too and regularised, so that they carry no image content.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from training.latent.space import LatentSpace
from training.techniques import draw_latents
from training.transparency import composite, has_alpha

Distance = Callable[[Tensor, Tensor], Tensor]
"""Images (n, channels, h, w) in [-1, 1] and as many others → distances (n,)."""

DRAWS = 10_000


@dataclass(frozen=True)
class Schedule:
    """The published values: the learning rate rises over the first 5 % of the steps and falls by
    a cosine over the last quarter; noise of `noise` times the standard deviation of w decays
    over the first three quarters; `regularise` is the weight of the noise inputs'
    autocorrelation."""

    steps: int = 1000
    rate: float = 0.1
    rise: float = 0.05
    fall: float = 0.25
    noise: float = 0.05
    fade: float = 0.75
    regularise: float = 1e5

    def rate_at(self, step: int) -> float:
        done = step / self.steps
        fall = min(1.0, (1 - done) / self.fall)
        fall = 0.5 - 0.5 * math.cos(fall * math.pi)
        return self.rate * fall * min(1.0, done / self.rise)

    def noise_at(self, step: int, spread: float) -> float:
        return spread * self.noise * max(0.0, 1 - step / self.steps / self.fade) ** 2


@dataclass(frozen=True)
class Projection:
    """`ws` (1, num_ws, w_dim) of the nearest image found, that `image` (1, channels, h, w), its
    `distance` to the target, and `initial_distance`, that of the image at the start: the mean
    image, or the encoder's."""

    ws: Tensor
    image: Tensor
    distance: float
    initial_distance: float


def noise_inputs(generator: torch.nn.Module) -> list[Tensor]:
    """Return the constant noise (h, w) of the layers, if the generator has any."""
    return [
        buffer
        for name, buffer in generator.named_buffers()
        if name.split(".")[-1] == "noise_const" and buffer.dim() >= 2
    ]


def noise_correlation(noise: Tensor) -> Tensor:
    """Return how far noise (h, w) is from white noise, over scales: the squared correlation with
    its neighbours (Karras et al. 2020a, equation 16)."""
    total = noise.new_zeros(())
    level = noise.reshape(1, 1, *noise.shape[-2:])
    while True:
        total = total + sum((level * level.roll(1, dims=side)).mean() ** 2 for side in (2, 3))
        if min(level.shape[2:]) <= 8:
            return total
        level = avg_pool2d(level, 2) * 2  # the mean of four values has half the deviation


def w_std(space: LatentSpace, label: Tensor) -> float:
    """Return the root mean square distance of w from the mean over 10,000 latents."""
    random, z_dim = torch.Generator().manual_seed(0), space.generator.z_dim
    latents = draw_latents(space.latent, DRAWS, z_dim, random, torch.device("cpu"))
    latents = latents.to(space.device)
    with torch.no_grad():
        ws = space.map(latents, label.expand(DRAWS))[:, 0]
    return float(((ws - space.w_avg) ** 2).sum(dim=1).mean() ** 0.5)


def project(
    space: LatentSpace,
    target: Tensor,
    distance: Distance,
    label: Tensor,
    schedule: Schedule = Schedule(),
    w_plus: bool = False,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    encoded: bool = False,
) -> Projection:
    """Find the w (or, with `w_plus`, one w per layer: W+) whose image is nearest to `target` (1,
    channels, h, w) by `distance`.

    `on_step` is called with (step, distance) at every step. The optimisation starts at the mean w,
    or with `encoded` at the latent that the encoder gives, without noise, which would lead away
    from it.
    """
    if encoded:
        schedule = replace(schedule, noise=0.0)
    space = space.at(copy.deepcopy(space.generator))  # its noise changes
    noises = noise_inputs(space.generator)
    random = torch.Generator().manual_seed(seed)
    for noise in noises:
        noise.copy_(torch.randn(noise.shape, generator=random)).requires_grad_()
    spread = w_std(space, label)
    count = space.num_ws if w_plus else 1
    start_ws = space.w_avg.repeat(1, space.num_ws, 1)
    if encoded:
        start_ws = space.encode(target, label)
    w = start_ws[:, :count].clone().requires_grad_()
    optimizer = torch.optim.Adam([w, *noises], lr=schedule.rate, betas=(0.9, 0.999))
    with torch.no_grad():
        ws = start_ws
        image = space.synthesize(ws, label)
        start = float(distance(image, target))
    best = Projection(ws, image, start, start)
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.rate_at(step)
        scale = schedule.noise_at(step, spread)
        shake = torch.randn(w.shape, generator=random).to(w.device) * scale
        ws = (w + shake).expand(-1, space.num_ws, -1)
        image = space.synthesize(ws, label)
        apart = distance(image, target).sum()
        now = float(apart.detach())
        if now < best.distance:
            best = Projection(ws.detach().clone(), image.detach(), now, start)
        noisy = sum((noise_correlation(noise) for noise in noises), apart.new_zeros(()))
        optimizer.zero_grad(set_to_none=True)
        (apart + schedule.regularise * noisy).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for noise in noises:
                noise.sub_(noise.mean()).mul_(noise.square().mean().rsqrt())
        if on_step:
            on_step(step, now)
    return best


def pixel_distance(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean squared differences (n,), averaged over sizes: full, halved, … to 8 px."""
    apart, parts = images - others, []
    while True:
        parts.append(apart.square().flatten(1).mean(dim=1))
        if min(apart.shape[2:]) <= 8:
            return torch.stack(parts).mean(dim=0)
        apart = avg_pool2d(apart, 2)


def choose_distance(by: str, device: torch.device) -> Distance:
    """Return the distance `pixels`, or the perceptual distance on the `features` of the metrics'
    extractor; RGBA is compared over black and over white."""
    if by == "pixels":
        return pixel_distance
    from training.extractor import load_extractor

    extractor = load_extractor(device)

    def distance(images: Tensor, others: Tensor) -> Tensor:
        if not has_alpha(images):
            return extractor.distance(images, others)
        # on one background alone, a hole would be as good as an object of its colour
        parts = [
            extractor.distance(composite(images, behind), composite(others, behind))
            for behind in (0.0, 1.0)
        ]
        return torch.stack(parts).mean(dim=0)

    return distance

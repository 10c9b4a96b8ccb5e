"""The transforms of adaptive augmentation by name, in the order and with the strengths of Karras
et al. 2020a, Appendix B; each is applied to an image with probability p."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation.color import draw_colors, recolor
from training.augmentation.corruption import add_noise, cut_out, draw_cutouts, draw_noise
from training.augmentation.filtering import draw_gains, filter_bands
from training.augmentation.geometry import draw_maps
from training.augmentation.transform_sampler import TransformSampler
from training.augmentation.warp import warp

BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
POLICIES: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": (*BLIT, *GEOM, *COLOR, "filter"),
    "bgcfn": (*BLIT, *GEOM, *COLOR, "filter", "noise"),
    "bgcfnc": (*BLIT, *GEOM, *COLOR, "filter", "noise", "cutout"),
}
"""The sets of transforms of the paper, by the names in its code."""


def transforms_of(ada: str | tuple[str, ...]) -> frozenset[str]:
    """Return the single transforms for a list of names of policies and transforms."""
    names = (ada,) if isinstance(ada, str) else ada
    return frozenset(single for name in names for single in POLICIES.get(name, (name,)))


def transform(
    images: Tensor,
    chosen: frozenset[str],
    p: float,
    random: torch.Generator,
    parameters: torch.Generator,
) -> Tensor:
    """Apply the `chosen` transforms to `images` float (n, c, h, w) in [-1, 1] (gray, colour or
    RGBA), each with probability `p`, in the order of the paper; computed in float32, the result has
    the type of `images`.

    `random`, of the images' device, draws noise; `parameters`, on the CPU, everything else.
    """
    if p <= 0 or not chosen:
        return images
    with torch.autocast(images.device.type, enabled=False):
        return _transform(
            images.float(), chosen, TransformSampler(len(images), p, parameters), random
        ).to(images.dtype)


def _transform(
    images: Tensor, chosen: frozenset[str], draws: TransformSampler, random: torch.Generator
) -> Tensor:
    height, width = images.shape[2:]
    if chosen & {*BLIT, *GEOM}:
        images = warp(images, draw_maps(draws, chosen, width, height))
    if chosen & {*COLOR}:
        images = recolor(images, *draw_colors(draws, chosen))
    if "filter" in chosen:
        images = filter_bands(images, draw_gains(draws))
    if "noise" in chosen:
        images = add_noise(images, draw_noise(draws), random)
    if "cutout" in chosen:
        images = cut_out(images, *draw_cutouts(draws))
    return images

"""Frozen networks as parts of networks that are trained.

Their weights are in no optimiser, no checkpoint and no parameter count. A checkpoint stores their
digest (`frozen_weights_digest`), so that a run resumes only with the weights it started with.
"""

from __future__ import annotations

import copy
import hashlib
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from training.extractor import (
    MIN_SIDE,
    Extractor,
    load_extractor,
    mirror,
    stage_distance,
)
from training.networks.layers import convolution_dtype
from training.transparency import composite, has_alpha, random_backgrounds


def frozen_features(
    images: Tensor, size: int = 0, backgrounds: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the extractor's maps at strides 4, 8, 16 and 32 for images (n, c, h, w) in [-1, 1].

    RGBA is composited over `backgrounds` (n, 3, 1, 1), by default a random colour per image: on one
    fixed background, an object of its colour and a hole would look the same, and where α·C equals
    it, no gradient would reach alpha.

    Images are resized to `size` px per side (0: not resized, at least `MIN_SIDE` px). Gradients
    flow to the images. Computed in the precision of the surrounding autocast.
    """
    values = images.float()
    if has_alpha(values):
        behind = random_backgrounds(values) if backgrounds is None else backgrounds
        values = composite(values, behind)
    height, width = (size, size) if size else (max(MIN_SIDE, side) for side in images.shape[2:])
    if (height, width) != tuple(images.shape[2:]):
        smaller = height < values.shape[2] or width < values.shape[3]  # to avoid aliasing
        values = interpolate(values, size=(height, width), mode="bilinear", antialias=smaller)
    if values.shape[1] == 1:
        values = values.expand(-1, 3, -1, -1)
    # one input unit of the network is 128 gray levels, and 0 is level 127
    inputs = (values * (127.5 / 128) + 0.5 / 128).contiguous(memory_format=torch.channels_last)
    return _extractor(images.device, convolution_dtype(inputs)).stages(inputs)


def perceptual_distance(images: Tensor, others: Tensor) -> Tensor:
    """Return the distance of two batches in the frozen network at their own size: the mean of
    `stage_distance`, a scalar. No gradient flows to `others`."""
    backgrounds = random_backgrounds(images) if has_alpha(images) else None  # the same for both
    with torch.no_grad():
        wanted = frozen_features(others, backgrounds=backgrounds)
    return stage_distance(frozen_features(images, backgrounds=backgrounds), wanted).mean()


def _extractor(device: torch.device, dtype: torch.dtype) -> Extractor:
    with torch.device("cpu"):  # the surrounding code may build on the meta device
        full = load_extractor(device)
        return full if dtype == torch.float32 else _converted(full, dtype)


@cache
def _converted(extractor: Extractor, dtype: torch.dtype) -> Extractor:
    """Return a copy with the weights that autocast would convert in every call: it remembers only
    those of trained weights."""
    with torch.inference_mode(False):
        made = copy.deepcopy(extractor)
        for layer in made.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(dtype=dtype)
    return made


@cache
def frozen_weights_digest() -> bytes:
    """Return the sha256 of the frozen weights."""
    found = hashlib.sha256()
    for name, weight in sorted(_extractor(torch.device("cpu"), torch.float32).state_dict().items()):
        found.update(name.encode())
        weight = mirror(weight) if weight.ndim == 4 else weight  # as published
        found.update(weight.contiguous().numpy().tobytes())
    return found.digest()

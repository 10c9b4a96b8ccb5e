"""Grids of images."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.contract import write_atomic
from pipeline.imaging.alpha import (
    WHITE,
    has_alpha,
    over,
    over_checkerboard,
    parse_colour,
    unpremultiply,
)
from training.networks import Generator
from training.transparency import limit_colours

Pixels = NDArray[np.uint8]
"""(…, height, width, channels); RGBA is premultiplied, as in training."""


@torch.no_grad()
def generate_images(
    generator: Generator, latents: Tensor, labels: Tensor, batch: int = 64
) -> Pixels:
    """Generate the images of latents as uint8 (n, height, width, channels), with networks in
    float32."""
    parts = []
    for some, which in zip(torch.split(latents, batch), torch.split(labels, batch), strict=True):
        images = limit_colours(generator(some, which).float()).clamp(-1, 1)
        parts.append(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
    pixels: Pixels = torch.cat(parts).numpy()
    return pixels


def square_columns(count: int) -> int:
    """Return the number of columns of a near-square grid of `count` images."""
    return math.ceil(math.sqrt(count))


def make_grid(images: Pixels, columns: int = 0) -> Pixels:
    """Arrange images in rows as one (height, width, channels) image; near-square by default."""
    from torchvision import utils  # takes seconds to import

    every = torch.from_numpy(images).permute(0, 3, 1, 2)
    grid = utils.make_grid(every, columns or square_columns(len(images)), padding=0)
    pixels: Pixels = grid[: images.shape[3]].permute(1, 2, 0).numpy()  # torchvision repeats gray
    return pixels


def enlarge(pixels: Pixels, scale: int) -> Pixels:
    """Repeat each pixel `scale` times in both directions."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def shown(pixels: Pixels) -> Pixels:
    """Return an image for looking at: RGBA over a checkerboard."""
    return over_checkerboard(pixels) if has_alpha(pixels) else pixels


def on_background(pixels: Pixels, colour: str) -> Pixels:
    """Composite an image with RGBA over a colour, "#rrggbb"; others are returned unchanged."""
    return over(pixels, parse_colour(colour)) if has_alpha(pixels) else pixels


def encode(pixels: Pixels, form: str = "PNG", **options: int) -> bytes:
    """Encode an image as a file: RGBA with straight alpha, over white in a JPEG."""
    buffer = io.BytesIO()
    if has_alpha(pixels):
        pixels = over(pixels, WHITE) if form == "JPEG" else unpremultiply(pixels)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def save_image(path: Path, pixels: Pixels) -> None:
    """Write an image in the format of the extension, atomically."""
    form = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
    write_atomic(path, encode(pixels, form))

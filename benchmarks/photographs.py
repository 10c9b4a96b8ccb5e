"""Synthetic photographs: textures with the spectrum of natural scenes, hard edges, sensor noise.

Generated from a seed, so that all programs and machines get the same files.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_SIDE = 1620
_SCENES = 12


def _texture(rng: np.random.Generator, slope: float) -> NDArray[np.float64]:
    """Return (side, side) noise of amplitude 1 / frequency ** slope, mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None, :])
    frequency[0, 0] = 1.0
    shape = frequency.shape
    spectrum = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    field = np.fft.irfft2(spectrum / frequency**slope, (_SIDE, _SIDE))
    return np.asarray((field - field.mean()) / field.std())


def scene(seed: int) -> Image.Image:
    """Return one large RGB scene to crop photographs from."""
    rng = np.random.default_rng(seed)
    light, warm, cool = _texture(rng, 1.8), _texture(rng, 2.0), _texture(rng, 2.0)
    base = 120 + 45 * light
    pixels = np.stack([base + 14 * warm, base - 6 * warm + 6 * cool, base - 14 * cool], axis=-1)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = (float(value) for value in rng.integers(0, _SIDE, 2))
        across, down = (float(value) for value in rng.uniform(15, 260, 2))
        colour = tuple(int(value) for value in rng.integers(20, 235, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - across, y - down, x + across, y + down), fill=colour)
    image = image.filter(ImageFilter.GaussianBlur(0.7))
    noise = rng.normal(0, 3, (_SIDE, _SIDE, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` JPEGs of quality 90, 600 to 1600 pixels per side, about 200 kB each.

    Existing files are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    if all(path.exists() for path in paths):
        return paths
    scenes = [scene(seed * 1000 + number) for number in range(min(_SCENES, count))]
    rng = np.random.default_rng(seed)
    for number, path in enumerate(paths):
        width, height = (int(value) for value in rng.integers(600, 1601, 2))
        left = int(rng.integers(0, _SIDE - width + 1))
        top = int(rng.integers(0, _SIDE - height + 1))
        part = scenes[number % len(scenes)].crop((left, top, left + width, top + height))
        data = io.BytesIO()
        part.save(data, "JPEG", quality=90)
        path.write_bytes(data.getvalue())
    return paths

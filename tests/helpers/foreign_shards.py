"""Shards as other tools write them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from PIL import Image

from tests.helpers.small_shards import encoded


def drawn(number: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture of any mode and size."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(Image.radial_gradient("L").resize((width, height)))
        return image
    if mode == "I;16":
        deep = np.asarray(image.convert("L")).astype(np.uint16)
        return Image.fromarray(deep * 250 + np.arange(width, dtype=np.uint16))
    return image.convert(mode)


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write_tar(path: Path, samples: Sequence[dict[str, Any]]) -> Path:
    """Write samples with webdataset's own writer; bytes are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wds.TarWriter(str(path), encoder=False) as sink:
        for sample in samples:
            sink.write(sample)
    return path


def numbered(count: int, first: int = 0, size: int = 16, **members: Any) -> list[dict[str, Any]]:
    """Samples that show their number; `members` are functions of the number, or bytes."""
    return [
        {
            "__key__": f"{number:06d}",
            "png": encoded(number, size, "PNG"),
            **{
                name.replace("_", "."): value(number) if callable(value) else value
                for name, value in members.items()
            },
        }
        for number in range(first, first + count)
    ]

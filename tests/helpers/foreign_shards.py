"""Shards as other tools write them."""

from __future__ import annotations

import io
import json
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


def img2dataset_run(folder: Path, shards: int = 3, count: int = 8, size: int = 20) -> Path:
    """A folder as img2dataset writes it with `--output_format webdataset --resize_mode no`: tars of
    `KEY.jpg`, `KEY.txt` and `KEY.json`, each with its `_stats.json` and `.parquet` beside it."""
    for shard in range(shards):
        samples = []
        for number in range(count):
            key = f"{shard:03d}{number:04d}"
            facts = {
                "caption": f"shell {number}", "url": f"https://example.org/{key}.jpg", "key": key,
                "status": "success", "error_message": None, "width": size + number, "height": size,
                "original_width": size + number, "original_height": size, "exif": "{}",
                "sha256": "0" * 64, "kind": ["cone", "whelk"][number % 2],
            }  # fmt: skip
            image = drawn(shard * count + number, size + number, size)
            samples.append({
                "__key__": key, "jpg": file_of(image, "JPEG", quality=95),
                "txt": facts["caption"].encode(), "json": json.dumps(facts).encode(),
            })  # fmt: skip
        write_tar(folder / f"{shard:03d}.tar", samples)
        stats = {"count": count, "successes": count, "failed_to_download": 0, "duration": 1.0}
        (folder / f"{shard:03d}_stats.json").write_text(json.dumps(stats))
        (folder / f"{shard:03d}.parquet").write_bytes(b"PAR1")
    return folder

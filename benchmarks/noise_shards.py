"""Shards of noise with labels, for benchmarks."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 256
LABELS = 10


def write_shards(
    folder: Path, height: int, width: int, channels: int, images: int = IMAGES
) -> None:
    """Write one shard of `images` PNG files of noise with labels, and its index, to `folder`."""
    folder.mkdir(parents=True)
    random, buffer = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(images):
            pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
            image = io.BytesIO()
            Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(image, "PNG")
            label = str(number % LABELS).encode()
            for ending, data in (("png", image.getvalue()), ("json", b"{}"), ("cls", label)):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    (folder / "noise-000000.tar").write_bytes(data)
    shard = {
        "url": "noise-000000.tar", "nsamples": images, "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    index = {
        "__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "noise",
        "shardlist": [shard], "resolution": [height, width], "channels": channels,
        "format": "png", "labels": [f"kind {n}" for n in range(LABELS)], "counts": {},
        "recipe": {}, "digest": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    (folder / "shards.json").write_text(json.dumps(index))

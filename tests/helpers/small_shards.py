"""Small shards to train on."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int, size: int, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that tells its number: the first pixels hold its bytes, the rest is noise."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (size, size, channels), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 1, 0] = number // 256, number % 256
    return pixels


def number_of(pixels: Any) -> int:
    """The number of the picture (height, width, channels) that `picture` drew."""
    return int(pixels[0, 0, 0]) * 256 + int(pixels[0, 1, 0])


def encoded(number: int, size: int, form: str, channels: int = 3) -> bytes:
    pixels = picture(number, size, channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, form)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True)
class SmallShards:
    """Shards in `data/NAME/shards` and their index in `manifests/NAME`, as the pipeline writes.

    With `labels` the first `labelled` samples have one.
    """

    root: Path
    sizes: Sequence[int] = (40, 33, 27)
    size: int = 16
    channels: int = 3
    labels: tuple[str, ...] = ()
    labelled: int = 1_000_000
    ballast: int = 0
    name: str = "small"
    tars: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        number = 0
        for shard, count in enumerate(self.sizes):
            members: dict[str, bytes] = {}
            for _ in range(count):
                key = f"{number:06d}"
                members[f"{key}.png"] = encoded(number, self.size, "PNG", self.channels)
                members[f"{key}.json"] = b"{}"
                if self.labels and number < self.labelled:
                    members[f"{key}.cls"] = str(number % len(self.labels)).encode()
                if self.ballast:
                    members[f"{key}.bin"] = np.random.default_rng(number).bytes(self.ballast)
                number += 1
            self.tars.append(tar_of(members))
            self.path(shard).write_bytes(self.tars[-1])
        self.write_index(f"../../data/{self.name}/shards/")

    @property
    def folder(self) -> Path:
        return self.root / "data" / self.name / "shards"

    @property
    def manifest(self) -> Path:
        return self.root / "manifests" / self.name

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def path(self, shard: int) -> Path:
        return self.folder / f"{self.name}-{shard:06d}.tar"

    def write_index(self, base: str) -> None:
        self.manifest.mkdir(parents=True, exist_ok=True)
        shards = [
            {
                "url": f"{base}{self.name}-{number:06d}.tar", "nsamples": self.sizes[number],
                "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
            }
            for number, data in enumerate(self.tars)
        ]  # fmt: skip
        index = {
            "__kind__": "wids-shard-index-v1", "wids_version": 1, "name": self.name,
            "shardlist": shards, "resolution": [self.size, self.size], "channels": self.channels,
            "format": "png", "labels": list(self.labels), "counts": {}, "recipe": {},
            "digest": hashlib.sha256(b"".join(self.tars)).hexdigest(),
        }  # fmt: skip
        (self.manifest / "shards.json").write_text(json.dumps(index))

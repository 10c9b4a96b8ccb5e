"""Datasets of real originals: parts written by the pipeline's own writer, no network."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, JsonlAppender, ManifestRow, image_key
from pipeline.imaging.images import decode_image
from pipeline.imaging.properties import measure_image
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import next_part, write_plan
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Served:
    """An image as a site would serve it."""

    data: bytes
    name: str
    labels: tuple[str, ...] = ()
    license: str = "CC0"
    host: str = "shells.example"

    @property
    def url(self) -> str:
        return f"https://{self.host}/{self.name}"

    @property
    def key(self) -> str:
        return image_key(self.url)


def picture(
    seed: int, size: tuple[int, int] = (120, 90), patches: tuple[int, int] = (9, 12)
) -> Image.Image:
    """Soft coloured patches: a picture that is like no other seed's."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (*patches, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(1))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **{**({"quality": 90} if kind == "JPEG" else {}), **options})
    return file.getvalue()


class Shop:
    """A folder in which to set up datasets and recipes."""

    Served = Served
    picture = staticmethod(picture)
    encoded = staticmethod(encoded)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = DatasetPaths("shells", root)

    def served(self, count: int, start: int = 0, **facts: Any) -> list[Served]:
        return [
            Served(encoded(picture(n)), f"{n:04d}.jpg", **facts)
            for n in range(start, start + count)
        ]

    def add(self, images: Sequence[Served], listed: bool = True) -> None:
        """Put images into the manifest and into one complete part of originals."""
        rows = [
            ManifestRow(
                one.key, one.url, f"https://{one.host}/", one.name, one.labels, one.license,
                "A. Person", "2024-05-01T00:00:00Z",
            )
            for one in images
        ]  # fmt: skip
        if listed:
            with JsonlAppender(self.dataset.url_manifest) as urls:
                urls.append(*(row.to_json() for row in rows))
        part = next_part(self.dataset)
        write_plan(self.dataset, part, [row.to_json() for row in rows])
        writer = PartWriter(self.dataset, part)
        for one, row in zip(images, rows, strict=True):
            facts = measure_image(decode_image(one.data, max_pixels=10**8))
            writer.add(row, "jpg", one.data, facts.recorded(), {})
        writer.finish()

    def recipe(self, select: dict[str, Any] | None = None, **shards: Any) -> Recipe:
        source = {"kind": "html", "start": ["https://shells.example/"], "image": "img"}
        values = {
            "source": source,
            "select": {"min_side": 8, **(select or {})},
            "shards": {"resolution": 16, "samples_per_shard": 10, **shards},
        }
        return parse_config(Recipe, values, "test recipe")

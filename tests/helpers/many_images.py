"""Datasets of very many tiny originals, made in seconds: their properties are invented."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, ManifestRow, image_key
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PART_SIZE, next_part, write_plan

SIDE = 32
_COLORS = 64


def add_many_images(dataset: DatasetPaths, count: int) -> None:
    """Add originals to the manifest and to complete parts: image n has colour n % 64 and sharpness
    n, and image 100 n + 1 is a near duplicate of the larger image 100 n."""
    pictures = [_picture(n) for n in range(_COLORS)]
    rng = np.random.default_rng(0)
    for begin in range(0, count, PART_SIZE):
        numbers = range(begin, min(begin + PART_SIZE, count))
        urls = [f"https://many.example/{number:06d}.jpg" for number in numbers]
        rows = [
            ManifestRow(
                image_key(url), url, "https://many.example/", labels=(f"<b>kind {n % 7}</b>",)
            )
            for n, url in zip(numbers, urls, strict=True)
        ]
        with JsonlAppender(dataset.url_manifest) as file:
            file.append(*(row.to_json() for row in rows))
        part = next_part(dataset)
        write_plan(dataset, part, [row.to_json() for row in rows])
        writer = PartWriter(dataset, part)
        detail, detail_of = "", 0
        for number, row in zip(numbers, rows, strict=True):
            if number % 100 != 1:
                detail, detail_of = rng.bytes(32).hex(), number
            properties = {
                "format": "JPEG", "mode": "RGB", "width": SIDE, "height": SIDE,
                "phash": detail[:16], "detail_hash": detail, "sharpness": float(number),
                "contrast": 50.0,
            }  # fmt: skip
            end = number.to_bytes(4 if detail_of == number else 3, "big")  # after the image's end
            data = pictures[number % _COLORS] + end
            writer.add(row, "jpg", data, properties, {})
        writer.finish()


def _picture(number: int) -> bytes:
    color = colorsys.hsv_to_rgb(number / _COLORS, 0.8, 0.9)
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), tuple(round(255 * c) for c in color)).save(file, "JPEG")
    return file.getvalue()

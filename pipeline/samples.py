"""One original becomes its training samples: cropped, resized, encoded, with their provenance.

A pure function of the bytes, the recorded facts and the options.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from pipeline.crops import Box, center_box, pad_box
from pipeline.kept import KeptImage
from pipeline.options import Shards
from pipeline.pixels import Original, Pixels, as_image, render

DEFAULT_JPEG_QUALITY = 95
PNG_LEVEL = 6


@dataclass(frozen=True)
class Sample:
    """A training sample: its key in the shard, (height, width, channels) pixels, crop box."""

    key: str
    pixels: Pixels
    box: Box


def make_samples(data: bytes, image: KeptImage, options: Shards) -> list[Sample]:
    """The samples of one image.

    Raises:
        ImageError: the bytes cannot be decoded.
    """
    record = image.record
    original = Original(
        data, (record.width, record.height), "L" if options.channels == 1 else "RGB"
    )
    height, width = options.size
    place = pad_box if options.crop == "pad" else center_box
    box = place(record.width, record.height, width / height)
    return [Sample(record.key, render(original, box, options.size), box)]


def encode(pixels: Pixels, options: Shards) -> bytes:
    """The pixels, (height, width, channels) uint8, as a file of the format asked for."""
    quality = options.quality
    if options.format == "jpg":
        gray = pixels.shape[2] == 1
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels),
            quality=quality or DEFAULT_JPEG_QUALITY,
            colorspace="GRAY" if gray else "RGB",
            colorsubsampling="Gray" if gray else "444",
        )
        return data
    image = as_image(pixels)
    file = io.BytesIO()
    if options.format == "png":
        image.save(file, "PNG", compress_level=PNG_LEVEL)
    elif quality is None:
        image.save(file, "WEBP", lossless=True, method=0, quality=0)
    else:
        image.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def provenance(sample: Sample, image: KeptImage) -> dict[str, Any]:
    """Where a sample is from: the shard's KEY.json."""
    record = image.record
    facts = image.row.to_json()
    return {
        **facts,
        "crop": sample.box.to_json(),
        "original": {
            "sha256": record.sha256, "bytes": record.bytes, "format": record.format,
            "mode": record.mode, "width": record.width, "height": record.height,
        },
    }  # fmt: skip


def members(
    sample: Sample, image: KeptImage, number: int | None, options: Shards
) -> dict[str, bytes]:
    """The members of a sample in a shard, by name: the image, its provenance, its class."""
    text = json.dumps(provenance(sample, image), ensure_ascii=False, sort_keys=True)
    files = {
        f"{sample.key}.{options.format}": encode(sample.pixels, options),
        f"{sample.key}.json": text.encode(),
    }
    if number is not None:
        files[f"{sample.key}.cls"] = str(number).encode()
    return files

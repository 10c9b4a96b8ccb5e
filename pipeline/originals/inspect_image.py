"""Inspects responses as images: the bytes to store, their properties, their provenance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.contract import ManifestRow
from pipeline.errors import Failure
from pipeline.imaging.center_crop import CenterSquare, center_square, encode_jpeg
from pipeline.imaging.images import DecodedImage, ImageProperties, decoded, measure_image
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.resampling import Pixels
from pipeline.outside_text import without_passwords
from pipeline.recipe import Recipe
from pipeline.web.failures import failure
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.opt_out.xmp import data_mining_signals
from pipeline.web.responses import Response

KEPT_HEADERS = (
    "content-type", "etag", "last-modified", "content-disposition", "link", "x-robots-tag",
    "tdm-reservation", "tdm-policy", "content-usage", "content-signal", "cache-control",
)  # fmt: skip
"""Response headers that are stored in an image's JSON: its type, its version, its terms of use."""

DECODE_SIDE = 256
"""Minimum short side, in pixels, at which an image is decoded to measure its properties."""


@dataclass(frozen=True)
class StoredImage:
    """A valid image: the bytes to store, its properties and its JSON."""

    data: bytes
    properties: ImageProperties
    sidecar: dict[str, Any]


def inspect_image(
    row: ManifestRow, response: Response, recipe: Recipe, stage: str
) -> StoredImage | Failure:
    """Decode a response and measure the image to be stored; return a failure if it is not a valid
    image or opts out."""
    data, limits = response.body, image_limits(recipe)
    side = recipe.originals.side
    signals = _all_signals(row, response)
    if refusing := recipe.politeness.refusing(signals):
        return failure(
            stage, row.url, "opt_out", key=row.key, status=response.status,
            attempts=response.attempts, detail=describe(refusing),
        )  # fmt: skip
    reason = recipe.politeness.override_reason
    opt_out = {"opt_out": [signal.to_json(reason(signal.name)) for signal in signals]}
    try:
        if side is None:
            with decoded(data, limits, DECODE_SIDE) as decoded_image:
                return StoredImage(
                    data, measure_image(decoded_image), sidecar(response, decoded_image) | opt_out
                )
        square = center_square(data, side, limits.max_pixels, limits)
        kept = as_stored_image(square.pixels, square.notes)
        encoded = encode_jpeg(square.pixels, recipe.originals.quality)
        return StoredImage(encoded, measure_image(kept), sidecar(response, square) | opt_out)
    except ImageError as error:
        return failure(
            stage, row.url, error.kind, key=row.key, status=response.status,
            attempts=response.attempts, detail=error.detail,
        )  # fmt: skip


def _all_signals(row: ManifestRow, response: Response) -> list[Signal]:
    """Return the opt-out signals of an image: in its response, in its file, and on its page."""
    signals = [*response.signals, *data_mining_signals(response.body)]
    for text in row.page_opt_out:
        name, _, where = text.partition(": ")
        signals.append(Signal(name, f"page, {where}"))
    return list(dict.fromkeys(signals))


def image_limits(recipe: Recipe) -> ImageLimits:
    """Return a recipe's limits on the images to decode."""
    originals = recipe.originals
    return ImageLimits(recipe.politeness.max_pixels, originals.max_side, originals.max_aspect)


def as_stored_image(pixels: Pixels, notes: tuple[str, ...]) -> DecodedImage:
    """Return (height, width, 1 or 3) pixels as the decoded image of the JPEG to be stored."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return DecodedImage(image, "JPEG", image.mode, *image.size, notes)


def sidecar(response: Response, decoded_image: DecodedImage | CenterSquare) -> dict[str, Any]:
    """Return the fields that an image's JSON has in addition to its manifest row: the origin of its
    bytes and the response headers."""
    headers = {
        name: without_passwords(response.headers[name])
        for name in KEPT_HEADERS
        if name in response.headers
    }
    return {
        "final_url": response.url,
        "status": response.status,
        "headers": headers,
        "served": {
            "bytes": len(response.body),
            "sha256": hashlib.sha256(response.body).hexdigest(),
            "format": decoded_image.format,
            "width": decoded_image.width,
            "height": decoded_image.height,
        },
        "notes": list(decoded_image.notes),
    }

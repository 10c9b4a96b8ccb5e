"""Inspects responses: whether a body is an image, the bytes to store, properties, provenance."""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.contract import ManifestRow
from pipeline.errors import Failure
from pipeline.imaging.center_crop import CenterSquare, center_square, encode_jpeg
from pipeline.imaging.formats import image_format, other_format
from pipeline.imaging.images import DecodedImage, decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.properties import ImageProperties, measure_image
from pipeline.imaging.resampling import Pixels
from pipeline.outside_text import without_passwords
from pipeline.recipe import Recipe
from pipeline.web.failures import failure
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.opt_out.xmp import data_mining_signals
from pipeline.web.responses import RawResponse, RequestFailure, Response

KEPT_HEADERS = (
    "content-type", "etag", "last-modified", "content-disposition", "link", "x-robots-tag",
    "tdm-reservation", "tdm-policy", "content-usage", "content-signal", "cache-control",
)  # fmt: skip
"""Response headers that are stored in an image's JSON: its type, its version, its terms of use."""

DECODE_SIDE = 256
"""Minimum short side, in pixels, at which an image is decoded to measure its properties."""


_PAGES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "quota_page",
        re.compile(
            r"quota exceeded|download quota|too many users have (viewed|downloaded)"
            r"|generating too much traffic|bandwidth (limit|quota)|traffic limit"
            r"|(download|transfer) limit (has been |was )?(exceeded|reached)"
        ),
    ),
    (
        "virus_scan_page",
        re.compile(
            r"virus scan warning|(can.?.?t|cannot|could not|unable to) (be )?scan(ned)?"
            r" (this file )?for viruses|too large for google to scan"
        ),
    ),
    ("login_page", re.compile(r"<input[^>]+type=[\"']?password|<title>[^<]*\b(log|sign) ?in\b")),
)
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title|script|meta)", re.S)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg", re.S)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.S | re.I)
_SNIFF_BYTES = 1 << 16


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
    signals = [*response.signals, *data_mining_signals(response.body), *row_signals(row)]
    return list(dict.fromkeys(signals))


def row_signals(row: ManifestRow) -> list[Signal]:
    """Return the opt-out signals of an image's page in its manifest row."""
    parts = (text.partition(": ") for text in row.page_opt_out)
    return [Signal(name, f"page, {where}") for name, _, where in parts]


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


def check_body(response: RawResponse) -> RequestFailure | None:
    """Return why a body is not a complete image, or None. Only its first and last bytes are read.

    The Content-Type is ignored: an image served as text/plain is an image, and a page served as
    image/jpeg is a page.
    """
    data = response.body
    if response.status == 304:
        return RequestFailure(
            "bad_status", "not modified, although the request was unconditional", 304
        )
    if not data.strip(b"\0 \r\n\t"):
        return RequestFailure("empty", f"{len(data)} bytes, all blank", response.status)
    name = image_format(data)
    if name is None:
        return RequestFailure(*_what_else(data, response.content_type), status=response.status)
    if "content-length" not in response.headers and _broken_off(data, name):
        return RequestFailure(
            "truncated", f"{len(data)} bytes without an end marker", response.status
        )
    return None


def _broken_off(data: bytes, name: str) -> bool:
    """Return True if the end marker of the format is missing. Extra bytes after it are allowed."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if name == "PNG":
        return b"IEND" not in data[-4096:]
    if name == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return name == "GIF" and b"\x3b" not in data[-64:]


def _what_else(data: bytes, content_type: str) -> tuple[str, str]:
    start = data[:_SNIFF_BYTES].lstrip(b"\xef\xbb\xbf")
    lower = start.lower()
    if _SVG.match(lower):
        return "wrong_type", "SVG"
    if _HTML.match(lower) or (content_type in ("text/html", "application/xhtml+xml")
                              and lower.lstrip()[:1] == b"<"):  # fmt: skip
        return _what_page(start.decode("utf-8", "replace"))
    name = other_format(data) or other_format(start)
    if name is not None:
        return "wrong_type", name
    if content_type and not content_type.startswith(("image/", "application/octet-stream")):
        return "wrong_type", content_type
    return "undecodable", f"begins with {start[:8]!r}"


def _what_page(text: str) -> tuple[str, str]:
    title = _TITLE.search(text)
    detail = " ".join(html.unescape(title[1]).split())[:120] if title else "a page"
    lower = text.lower()
    for kind, pattern in _PAGES:
        if pattern.search(lower):
            return kind, detail
    return "html_page", detail

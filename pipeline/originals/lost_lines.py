"""Restores lost lines of a journal from the tar of the part."""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, Any

from pipeline.contract import OriginalRecord, now_utc
from pipeline.imaging.images import decoded, measure_image
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.options import OriginalsOptions
from pipeline.originals.inspect_image import DECODE_SIDE
from pipeline.originals.parts import journal_line
from pipeline.outside_text import parse_json
from pipeline.web.politeness import Politeness

_BLOCK = 512
_MAX_SIDECAR = 1 << 20
_LIMITS = ImageLimits(Politeness().max_pixels, OriginalsOptions().max_side)


def read_lost_line(part: str, tar: IO[bytes], start: int) -> dict[str, Any] | None:
    """Measure the image at `start` in the tar again and return its journal line.

    Returns:
        The line; None if no image with its JSON is there, or the JSON has another sha256.
    """
    tar.seek(start)
    try:
        name, data = _read_member(tar, Politeness().max_bytes)
        beside, text = _read_member(tar, _MAX_SIDECAR)
        sidecar = parse_json(text)
        key, digest = sidecar["key"], hashlib.sha256(data).hexdigest()
        if sidecar["sha256"] != digest or beside != f"{key}.json" or not name.startswith(f"{key}."):
            return None
        with decoded(data, _LIMITS, DECODE_SIDE) as image:
            properties = measure_image(image).recorded()
        record = OriginalRecord(
            key=key, part=part, member=name, offset=start + _BLOCK, bytes=len(data), sha256=digest,
            opt_out=sidecar.get("opt_out"), **properties,
        )  # fmt: skip
        line = {"ok": True, "ts": now_utc(), **record.to_json(), "end": tar.tell()}
        return journal_line(part, line)
    except (tarfile.TarError, ImageError, ValueError, KeyError, TypeError):
        return None


def _read_member(tar: IO[bytes], most: int) -> tuple[str, bytes]:
    """Read the member at the current position, with its padding.

    Raises:
        tarfile.TarError: there is no member.
        ValueError: it is larger than `most` bytes, or is truncated.
    """
    info = tarfile.TarInfo.frombuf(tar.read(_BLOCK), "utf-8", "strict")
    if not 0 <= info.size <= most:
        raise ValueError(f"{info.size} bytes")
    data = tar.read(info.size)
    padding = -info.size % _BLOCK
    if len(data) < info.size or len(tar.read(padding)) < padding:
        raise ValueError("truncated")
    return info.name, data

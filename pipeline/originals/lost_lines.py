"""Lines of a journal that were lost, read again from the tar of the part."""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, Any

from pipeline.contract import OriginalRecord, now_utc
from pipeline.imaging.images import decoded, measure_image
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.options import OriginalsOptions
from pipeline.originals.inspect_image import DECODE_SIDE
from pipeline.outside_text import parse_json
from pipeline.web.politeness import Politeness

_BLOCK = 512
_MAX_SIDECAR = 1 << 20
_LIMITS = ImageLimits(Politeness().max_pixels, OriginalsOptions().max_side)


def read_lost_line(part: str, tar: IO[bytes], start: int) -> dict[str, Any] | None:
    """Return the journal line of the image at `start`, measured again.

    Returns:
        None if there is no image with its JSON, or its bytes are not those that the JSON names.
    """
    tar.seek(start)
    try:
        name, data = _read_member(tar, Politeness().max_bytes)
        beside, text = _read_member(tar, _MAX_SIDECAR)
        facts = parse_json(text)
        key, digest = facts["key"], hashlib.sha256(data).hexdigest()
        if facts["sha256"] != digest or beside != f"{key}.json" or not name.startswith(f"{key}."):
            return None
        with decoded(data, _LIMITS, DECODE_SIDE) as image:
            properties = measure_image(image).recorded()
    except (tarfile.TarError, ImageError, ValueError, KeyError, TypeError):
        return None
    record = OriginalRecord(
        key=key, part=part, member=name, offset=start + _BLOCK, bytes=len(data), sha256=digest,
        opt_out=facts.get("opt_out"), **properties,
    )  # fmt: skip
    return {"ok": True, "ts": now_utc(), **record.to_json(), "end": tar.tell()}


def _read_member(tar: IO[bytes], most: int) -> tuple[str, bytes]:
    """Read the member at this position, with its padding.

    Raises:
        tarfile.TarError: there is none.
        ValueError: it is larger than `most` bytes, or ends early.
    """
    info = tarfile.TarInfo.frombuf(tar.read(_BLOCK), "utf-8", "strict")
    if not 0 <= info.size <= most:
        raise ValueError(f"{info.size} bytes")
    data = tar.read(info.size)
    padding = -info.size % _BLOCK
    if len(data) < info.size or len(tar.read(padding)) < padding:
        raise ValueError("cut off")
    return info.name, data

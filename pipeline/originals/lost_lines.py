"""Restores lost lines of a journal from the tar of the part."""

from __future__ import annotations

import hashlib
import os
import tarfile
from itertools import islice
from typing import IO, Any

from pipeline.contract import OriginalRecord, now_utc
from pipeline.contract.tar import BLOCK, members
from pipeline.imaging.images import decoded, measure_image
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.options import OriginalsOptions
from pipeline.originals.inspect_image import DECODE_SIDE
from pipeline.originals.parts import journal_line
from pipeline.outside_text import parse_json
from pipeline.web.politeness import Politeness

_MAX_SIDECAR = 1 << 20
_LIMITS = ImageLimits(Politeness().max_pixels, OriginalsOptions().max_side)


def read_lost_line(part: str, tar: IO[bytes], start: int) -> dict[str, Any] | None:
    """Measure the image at `start` in the tar again and return its journal line.

    Returns:
        The line; None if no image with its JSON is there, or the JSON has another sha256.
    """

    def pread(size: int, offset: int) -> bytes:
        return os.pread(tar.fileno(), size, start + offset)

    try:
        rest = os.fstat(tar.fileno()).st_size - start
        (name, image), (beside, text) = islice(members(pread, rest), 2)
        if image.size > Politeness().max_bytes or text.size > _MAX_SIDECAR:
            return None
        data = pread(image.size, image.offset)
        sidecar = parse_json(pread(text.size, text.offset))
        key, digest = sidecar["key"], hashlib.sha256(data).hexdigest()
        if sidecar["sha256"] != digest or beside != f"{key}.json" or not name.startswith(f"{key}."):
            return None
        with decoded(data, _LIMITS, DECODE_SIDE) as opened:
            properties = measure_image(opened).recorded()
        record = OriginalRecord(
            key=key, part=part, member=name, offset=start + image.offset, bytes=len(data),
            sha256=digest, opt_out=sidecar.get("opt_out"), **properties,
        )  # fmt: skip
        end = start + text.offset + text.size + -text.size % BLOCK
        line = {"ok": True, "ts": now_utc(), **record.to_json(), "end": end}
        return journal_line(part, line)
    except (tarfile.TarError, ImageError, ValueError, KeyError, TypeError):
        return None

"""Warns of options that have no effect on the samples of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.events import EventLog
from pipeline.options import ShardOptions
from pipeline.shards.builder import STAGE, BuiltShard
from pipeline.shards.samples import OPAQUE_FLAG

_OPAQUE_HINT = (
    'channels = 4 keeps the transparency of the originals, and crop = "object" cuts objects out of '
    "plain backgrounds; these images have neither"
)
_CROP_HINTS = {
    "object": "it finds objects on plain backgrounds and in transparent images",
    "box": "it needs images with boxes, from import or from the column that source.boxes names",
    "hook": "the function that shards.hook names returned no box that is inside the image",
}
"""What each crop mode that falls back to the center needs."""


def warn(options: ShardOptions, shards: Sequence[BuiltShard], log: EventLog) -> None:
    """Emit an event if no sample is transparent though they have four channels, and one if the crop
    mode fell back to the center in most samples."""
    samples = sum(one.nsamples for one in shards)
    opaque = sum(one.stats.get(OPAQUE_FLAG, 0) for one in shards)
    if opaque == samples:
        log.emit(STAGE, "no sample is transparent", samples=opaque, hint=_OPAQUE_HINT)
    centered = sum(one.stats.get("fell_back", 0) for one in shards)
    if 2 * centered > samples:
        log.emit(
            STAGE, "most samples are crops of the center", centered=centered, samples=samples,
            hint=f"crop = \"{options.crop}\" found nothing in these images; "
            f"{_CROP_HINTS[options.crop]}",
        )  # fmt: skip

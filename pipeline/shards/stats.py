"""Counts for the card and the index of a dataset, and pixel statistics of a shard."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths
from pipeline.imaging.alpha import WHITE, has_alpha, over, premultiply
from pipeline.imaging.pixels import as_image
from pipeline.imaging.resampling import Pixels
from pipeline.select.selection import SelectedImage, read_rejected, read_selection
from pipeline.shards.samples import flags_of
from pipeline.web.urls import host_or_none

_MAX_ATTRIBUTIONS = 10_000

_MEAN_SIDE = 64

_STATS_EVERY = 4


@dataclass
class DatasetStats:
    """Counts over the kept and the rejected images. `short_sides` counts images by their short
    side, rounded down to a power of two; `first` and `last` are the times at which the first and
    the last image was found (ISO 8601). `opt_outs` counts failures by opt-out signal, `overrides`
    kept images by overridden signal and reason."""

    kept: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    attributions: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    short_sides: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    opt_outs: Counter[str] = field(default_factory=Counter)
    overrides: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: str = ""
    last: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """The counts for the index: downloaded, kept, rejected, and rejected by reason."""
        rejected = sum(self.rejections.values())
        return {
            "downloaded": self.kept + rejected,
            "kept": self.kept,
            "rejected": rejected,
            **{f"rejected.{reason}": n for reason, n in sorted(self.rejections.items())},
        }

    def add(self, image: SelectedImage) -> None:
        row, record = image.row, image.record
        self.kept += 1
        self.licenses[row.license] += 1
        if row.attribution in self.attributions or len(self.attributions) < _MAX_ATTRIBUTIONS:
            self.attributions[row.attribution] += 1
        self.labels.update(row.labels)
        self.hosts[host_or_none(row.url) or "(local files)"] += 1
        self.short_sides[1 << (max(1, min(record.width, record.height)).bit_length() - 1)] += 1
        self.formats[record.format] += 1
        self.overrides.update({
            (str(one.get("signal", "")), str(one.get("overridden", "")))
            for one in record.opt_out or ()
        })  # fmt: skip
        if row.found:
            self.first = min(self.first or row.found, row.found)
            self.last = max(self.last, row.found)


def collect_stats(dataset: DatasetPaths) -> DatasetStats:
    """Collect the stats of a dataset from its selection and its rejections."""
    stats = DatasetStats()
    for image in read_selection(dataset.selection):
        stats.add(image)
    stats.rejections.update(line["reason"] for line in read_rejected(dataset.rejections))
    return stats


class PixelStats:
    """Sums over one in `_STATS_EVERY` samples of a shard; colours of RGBA are multiplied by
    alpha."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.samples, self._channels = 0, channels
        self.notes: Counter[str] = Counter()
        self._measured = 0
        self._sum = np.zeros((*size, channels), np.uint32)
        self._values = np.zeros((channels, 256), np.int64)

    def add(self, notes: tuple[str, ...], pixels: Callable[[], Pixels]) -> None:
        """Count a sample; its pixels are decoded only if it is measured."""
        self.samples += 1
        self.notes.update(notes)
        if self.samples % _STATS_EVERY != 1:
            return
        self._measured += 1
        values = premultiply(pixels()) if self._channels == 4 else pixels()
        self._sum += values
        histogram = np.array(as_image(values).histogram(), np.int64)
        self._values += histogram.reshape(values.shape[2], 256)

    def to_json(self) -> dict[str, Any]:
        """Return `mean` and `mean_square` by channel, the mean image (PNG, base64), the number of
        samples `measured`, and the number of samples with each flag (`flags_of`)."""
        level = np.arange(256)
        pixels = max(1, int(self._values[0].sum()))
        return {
            "mean": [round(float(one), 4) for one in self._values @ level / pixels],
            "mean_square": [round(float(one), 4) for one in self._values @ level**2 / pixels],
            "mean_image": base64.b64encode(_small_png(self._sum / max(1, self._measured))).decode(),
            "measured": self._measured,
            **{note: self.notes[note] for note in flags_of(self._channels)},
        }


def _small_png(mean: NDArray[np.float64]) -> bytes:
    pixels = np.rint(mean).astype(np.uint8)
    image = as_image(over(pixels, WHITE) if has_alpha(pixels) else pixels)
    image.thumbnail((_MEAN_SIDE, _MEAN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

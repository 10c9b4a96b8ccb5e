"""Pixel statistics of a shard, for the card."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.pixels import as_image
from pipeline.imaging.resampling import Pixels
from pipeline.shards.samples import PROVENANCE_FLAGS

_MEAN_SIDE = 64


_STATS_EVERY = 4


class PixelStats:
    """Sums over one in `_STATS_EVERY` samples of a shard."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.samples = 0
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
        values = pixels()
        self._sum += values
        histogram = np.array(as_image(values).histogram(), np.int64)
        self._values += histogram.reshape(values.shape[2], 256)

    def to_json(self) -> dict[str, Any]:
        """Return `mean` and `mean_square` by channel, the mean image (PNG, base64), the number of
        samples `measured`, and the number of samples with each of `PROVENANCE_FLAGS`."""
        level = np.arange(256)
        pixels = max(1, int(self._values[0].sum()))
        return {
            "mean": [round(float(one), 4) for one in self._values @ level / pixels],
            "mean_square": [round(float(one), 4) for one in self._values @ level**2 / pixels],
            "mean_image": base64.b64encode(_small_png(self._sum / max(1, self._measured))).decode(),
            "measured": self._measured,
            **{note: self.notes[note] for note in PROVENANCE_FLAGS},
        }


def _small_png(mean: NDArray[np.float64]) -> bytes:
    image = as_image(np.rint(mean).astype(np.uint8))
    image.thumbnail((_MEAN_SIDE, _MEAN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

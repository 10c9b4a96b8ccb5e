"""Counts for the card and the index of a dataset, from one pass over its lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.contract import DatasetPaths
from pipeline.select.selection import SelectedImage, read_rejected, read_selection
from pipeline.web.urls import host_or_none

_MAX_ATTRIBUTIONS = 10_000


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

"""Counts for the card and the index of a dataset, in one pass over its lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.contract import DatasetPaths
from pipeline.select.selection import SelectedImage, read_rejected, read_selection
from pipeline.web.urls import host_or_none

_MOST_ATTRIBUTIONS = 10_000


@dataclass
class DatasetStats:
    """Counts over the kept images and the rejected. `sides` counts short sides by the power of
    two at or under them; `first` and `last` bound when the images were found (ISO 8601).
    `opt_outs` counts failures by opt-out signal, `overrides` kept images by overridden signal and
    reason."""

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
        """For the index: downloaded, kept, rejected, and rejected by reason."""
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
        if row.attribution in self.attributions or len(self.attributions) < _MOST_ATTRIBUTIONS:
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
    """Count over the kept and the rejected list of a dataset."""
    facts = DatasetStats()
    for image in read_selection(dataset.selection):
        facts.add(image)
    facts.rejections.update(line["reason"] for line in read_rejected(dataset.rejections))
    return facts

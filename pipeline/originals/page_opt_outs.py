"""Images whose pages opt out, known before they are requested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from pipeline.contract import DatasetPaths, ManifestRow, complete_lines
from pipeline.crawl.manifest_lookup import parse_line
from pipeline.errors import Failure
from pipeline.originals.inspect_image import row_signals
from pipeline.web.failures import failure
from pipeline.web.opt_out.signals import describe
from pipeline.web.politeness import Politeness


class PageOptOuts:
    """The opt-outs of pages that the recipe does not override: those in the URL manifest, if it is
    on this machine, and those in the rows of a plan, which may be older."""

    def __init__(self, dataset: DatasetPaths, politeness: Politeness) -> None:
        self._politeness = politeness
        self._known: dict[str, str] = {}
        for row in _rows_with_opt_outs(dataset):
            if detail := self._detail(row):
                self._known[row.key] = sys.intern(detail)

    def refusal(self, row: ManifestRow, stage: str) -> Failure | None:
        """Return the failure of a planned row whose page opts out; else None."""
        detail = self._known.get(row.key) or self._detail(row)
        if not detail:
            return None
        return failure(stage, row.url, "opt_out", key=row.key, attempts=0, detail=detail)

    def _detail(self, row: ManifestRow) -> str:
        return describe(self._politeness.refusing(row_signals(row)))


def _rows_with_opt_outs(dataset: DatasetPaths) -> Iterator[ManifestRow]:
    path = dataset.url_manifest
    with suppress(FileNotFoundError), path.open("rb") as lines:
        for number, line in enumerate(complete_lines(lines), start=1):
            if b'"page_opt_out"' in line:  # parsing all lines would take long
                yield parse_line(path, line, number)

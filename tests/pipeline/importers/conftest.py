"""A dataset to import into, and what arrived in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.events import EventLog
from pipeline.importers.items import ImportOptions
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from tests.helpers.import_files import IMPORTS


@dataclass
class Imported:
    """What an import found and left: rows of the manifest, and pixels, by title."""

    result: ImportResult
    found: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)
    """All rows of the manifest; titles can repeat."""

    @property
    def labels(self) -> dict[str, list[str]]:
        assert len(self.rows) == len(self.listed)
        return {title: row["labels"] for title, row in self.rows.items()}

    @property
    def boxes(self) -> dict[str, list[list[float]]]:
        assert len(self.rows) == len(self.listed)
        return {title: row.get("boxes", []) for title, row in self.rows.items()}

    @property
    def problems(self) -> list[str]:
        return [f"{one['kind']}: {one['detail']}" for one in self.failures]


Take = Callable[..., Imported]


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Take]:
    """Import a path into an empty dataset, and return what arrived."""
    count = iter(range(100))

    def run(path: Path, form: str = "", **options: str) -> Imported:
        dataset = DatasetPaths("d", tmp_path / f"project-{next(count)}")
        found: list[str] = []
        with EventLog(dataset, "test") as log:
            result = import_dataset(
                path, dataset, log, form, None, ImportOptions(**options), found.append
            )
        (line,) = found
        assert "\n" not in line
        done = Imported(result, line)
        rows = {row["key"]: row for row in read_jsonl(dataset.url_manifest)}
        for record in read_records(dataset):
            row = rows[record.key]
            done.listed.append(row)
            done.rows[row["title"]] = row
            image = Image.open(io.BytesIO(read_original(dataset, record)))
            done.pixels[row["title"]] = np.asarray(image)
        if dataset.failure_log.exists():
            done.failures = list(read_jsonl(dataset.failure_log))
        assert len(done.failures) == result.failed
        assert not any("Traceback" in one["detail"] for one in done.failures)
        return done

    return run


@pytest.fixture(scope="session")
def truth() -> list[np.ndarray]:
    """The pixels of the four images in tests/data/imports."""
    return [np.asarray(Image.open(IMPORTS / f"images/{number}.png")) for number in range(4)]

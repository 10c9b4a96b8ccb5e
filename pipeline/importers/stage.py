"""Imports datasets of other tools; `FORMATS` is the registry.

Import replaces crawl and download: it writes manifest rows and complete parts, from which select
and shard continue. Images that were imported before are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, image_key, read_jsonl
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.imaging.images import EXTENSIONS, decoded, measure_image
from pipeline.imaging.limits import ImageError, ImageLimits, limit_decoding
from pipeline.importers.archives import find_tars, nvlabs, shards
from pipeline.importers.folders import image_folder
from pipeline.importers.items import STAGE, ImportedImage, Items, is_file
from pipeline.options import OriginalsOptions
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import (
    PART_SIZE,
    PartFiles,
    is_complete,
    next_part,
    planned_parts,
    write_plan,
)
from pipeline.recipe import Recipe
from pipeline.web.failures import caught_failure, failure, internal_failure
from pipeline.web.politeness import Politeness


@dataclass(frozen=True)
class ImportResult:
    """The number of images imported, already present, and failed."""

    images: int
    known: int
    failed: int


def import_dataset(
    path: Path, dataset: DatasetPaths, log: EventLog, form: str = "", recipe: Recipe | None = None
) -> ImportResult:
    """Import the images at `path`. If the import is interrupted, run it again.

    Args:
        path: a folder, a zip file, or a shard index.
        form: one of `FORMATS`; detected if empty.
        recipe: the recipe whose image limits apply; None: the defaults.

    Raises:
        UserError: the path does not exist, or has another format.
    """
    if not (path.is_dir() or path.is_file()):
        there = path.exists()
        raise UserError(
            f"{path}: " + ("not a file or folder" if there else "file or folder does not exist")
        )
    form = form or detect_format(path)
    if form not in FORMATS:
        raise UserError(f"import: unknown format {form!r}; choose from {', '.join(FORMATS)}")
    politeness = recipe.politeness if recipe else Politeness()
    originals = recipe.originals if recipe else OriginalsOptions()
    limit_decoding(originals.decode_megabytes)
    limits = ImageLimits(politeness.max_pixels, originals.max_side, originals.max_aspect)
    filler = _PartFiller(dataset, log, limits, politeness.max_bytes)
    for part in planned_parts(dataset):
        if not is_complete(dataset, part):
            wanted = {row.key for row in PartFiles(dataset, part).rows()}
            items = (one for one in FORMATS[form](path) if isinstance(one, ImportedImage))
            filler.fill(part, (item for item in items if item.row.key in wanted))
    known = {row.key for part in planned_parts(dataset) for row in PartFiles(dataset, part).rows()}
    listed = {line["key"] for line in read_jsonl(dataset.url_manifest)}
    fresh = _new_images(FORMATS[form](path), known, filler)
    while batch := list(islice(fresh, PART_SIZE)):
        rows = [item.row.to_json() for item in batch]
        with JsonlAppender(dataset.url_manifest) as urls:
            urls.append(*(row for row in rows if row["key"] not in listed))
        part = next_part(dataset)
        write_plan(dataset, part, rows)
        filler.fill(part, iter(batch))
    if not any(filler.counts.values()):
        raise UserError(f"{path}: no images in it (read as {form})")
    return ImportResult(**filler.counts)


def _new_images(items: Items, known: set[str], filler: _PartFiller) -> Iterator[ImportedImage]:
    """Yield the images that are not in the dataset yet; log failures."""
    for item in items:
        if isinstance(item, Failure):
            filler.fail(item)
            continue
        key = image_key(item.url)
        if key in known:
            filler.counts["known"] += 1
        else:
            known.add(key)
            yield item


class _PartFiller:
    """Fills parts with images and counts the outcomes."""

    def __init__(
        self, dataset: DatasetPaths, log: EventLog, limits: ImageLimits, max_bytes: int
    ) -> None:
        self.counts = {"images": 0, "known": 0, "failed": 0}
        self.limits, self.max_bytes = limits, max_bytes
        self._dataset, self._log = dataset, log

    def fill(self, part: str, items: Iterator[ImportedImage]) -> None:
        with closing(PartWriter(self._dataset, part)) as writer:
            for item in items:
                if item.row.key in writer.done:
                    continue
                failed = _add(writer, item, self)
                if failed is None:
                    self.counts["images"] += 1
                else:
                    writer.add_failure(item.row.key, failed)
                    self.fail(failed)
                self._log.progress(STAGE, sum(self.counts.values()), None, "images")
            writer.finish()

    def fail(self, failed: Failure) -> None:
        self.counts["failed"] += 1
        self._log.log_failure(failed)


def _add(writer: PartWriter, item: ImportedImage, filler: _PartFiller) -> Failure | None:
    """Add one image to its part, or return its failure; errors of one image are caught here."""
    row = item.row
    try:
        data = item.read(filler.max_bytes)
        with decoded(data, filler.limits) as image:
            properties = measure_image(image)
    except ImageError as error:
        return failure(STAGE, row.url, error.kind, key=row.key, detail=error.detail)
    except OSError as error:
        kind = "not_found" if isinstance(error, FileNotFoundError) else "unreachable"
        return failure(STAGE, row.url, kind, key=row.key, detail=error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        return caught_failure(STAGE, row.url, error, row.key)
    try:
        extension = EXTENSIONS[properties.format]
        writer.add(row, extension, data, properties.recorded(), {"imported": True})
    except OSError:  # an error of this machine, not of the image
        raise
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        return internal_failure(STAGE, row.url, error, row.key)
    return None


def detect_format(path: Path) -> str:
    """Detect the format of a dataset."""
    if path.suffix in (".json", ".tar") or is_file(path / "shards.json"):
        return "shards"
    if path.is_dir() and find_tars(path):
        return "shards"
    if path.suffix == ".zip" or is_file(path / "dataset.json"):
        return "nvlabs"
    return "imagefolder"


FORMATS: dict[str, Callable[[Path], Items]] = {
    "imagefolder": image_folder,
    "nvlabs": nvlabs,
    "shards": shards,
}
"""Readers by format; each yields images and failures in a fixed order."""

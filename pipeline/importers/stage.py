"""Imports datasets of other tools, in one of the formats of `registry.FORMATS`.

Import replaces crawl and download: it writes manifest rows and complete parts, from which select
and shard continue. Images that were imported before are skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, read_jsonl
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.imaging.images import EXTENSIONS
from pipeline.imaging.limits import ImageLimits, limit_decoding
from pipeline.imaging.properties import ImageProperties
from pipeline.importers.image_reader import ImageReader, Outcome
from pipeline.importers.items import STAGE, ImportedImage, ImportOptions, Items, Skipped
from pipeline.importers.registry import Import, open_import
from pipeline.options import OriginalsOptions
from pipeline.originals.download import decoding_threads
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import (
    PART_SIZE,
    PartFiles,
    is_complete,
    next_part,
    planned_parts,
    read_journal,
    read_summary,
    write_plan,
)
from pipeline.recipe import Recipe
from pipeline.units import count_of
from pipeline.web.failures import internal_failure
from pipeline.web.politeness import Politeness

_MAX_HELD = 128 << 20
"""Bytes of images that wait in memory; a part then has fewer than `PART_SIZE` images."""

_MAX_AHEAD = 32 << 20
"""Bytes of images to read ahead."""


@dataclass(frozen=True)
class ImportResult:
    """The images found: the number of those that this import added, that were present before, that
    failed, and that failed in an earlier import, which are not read again.

    `pending` images are in parts that an interrupted import or download of another source left
    incomplete.
    """

    images: int
    known: int
    failed: int
    failed_before: int = 0
    pending: int = 0


def import_dataset(
    path: Path,
    dataset: DatasetPaths,
    log: EventLog,
    form: str = "",
    recipe: Recipe | None = None,
    options: ImportOptions = ImportOptions(),  # noqa: B008 frozen
    announce: Callable[[str], None] = lambda _: None,
) -> ImportResult:
    """Import the images at `path`. If the import is interrupted, run it again.

    Args:
        path: a folder, an archive, a shard index, or another file of one of the formats.
        form: one of `registry.FORMATS`; detected if empty.
        recipe: the recipe whose image limits apply; None: the defaults.
        announce: called with the format that was found, as one line.

    Raises:
        UserError: the path does not exist, or has another format, or no images.
    """
    source = open_import(path, form)
    with closing(source.tree):
        source.check(options)
        announce(source.found)
        return _import(source, dataset, log, recipe, options)


def _import(
    source: Import, dataset: DatasetPaths, log: EventLog, recipe: Recipe | None,
    options: ImportOptions,
) -> ImportResult:  # fmt: skip
    politeness = recipe.politeness if recipe else Politeness()
    originals = recipe.originals if recipe else OriginalsOptions()
    limit_decoding(originals.decode_megabytes)
    limits = ImageLimits(politeness.max_pixels, originals.max_side, originals.max_aspect)
    with ThreadPoolExecutor(decoding_threads(), thread_name_prefix="import") as pool:
        filler = _PartFiller(dataset, log, ImageReader(limits, politeness.max_bytes), pool)
        _complete_parts(dataset, lambda: source.items(options), filler)
        _add_parts(dataset, source.items(options), filler, options)
    if not any(filler.counts.values()):
        split = f", split {options.split}" if options.split else ""
        raise UserError(f"{source.tree.path}: no images in it (read as {source.format}{split})")
    pending = sum(map(len, _incomplete_parts(dataset).values()))
    return ImportResult(**filler.counts, pending=pending)


def _complete_parts(dataset: DatasetPaths, items: Callable[[], Items], filler: _PartFiller) -> None:
    """Complete the parts of an interrupted import. Those of other sources stay incomplete."""
    parts = _incomplete_parts(dataset)
    found = {one.key for one in _pick(items(), set().union(*parts.values()))}
    for part, keys in parts.items():
        if not keys.isdisjoint(found):
            filler.log.emit(STAGE, "interrupted import continued", part=part, images=len(keys))
            filler.completed |= filler.fill(part, keys, items())


def _incomplete_parts(dataset: DatasetPaths) -> dict[str, set[str]]:
    """Return the planned keys of the parts that are not complete."""
    parts = (part for part in planned_parts(dataset) if not is_complete(dataset, part))
    return {part: _planned_keys(dataset, part) for part in parts}


def _planned_keys(dataset: DatasetPaths, part: str) -> set[str]:
    return {row.key for row in PartFiles(dataset, part).rows()}


def _pick(items: Items, keys: set[str]) -> Iterator[ImportedImage]:
    """Yield the image of each of these keys once, as far as there is one."""
    left = set(keys)
    while left and (item := next(items, None)) is not None:
        if isinstance(item, ImportedImage) and item.key in left:
            left.remove(item.key)
            yield item


def _add_parts(
    dataset: DatasetPaths, items: Items, filler: _PartFiller, options: ImportOptions
) -> None:
    """Add the images that are not in the dataset yet, in new parts.

    Raises:
        UserError: `options.label` names nothing that any of the first images has.
    """
    parts = planned_parts(dataset)
    known = {key for part in parts for key in _planned_keys(dataset, part)}
    filler.failed_before = set(_failed_keys(dataset, parts)) - filler.completed
    listed = {line["key"] for line in read_jsonl(dataset.url_manifest)}
    new = _new_images(items, known, filler)
    while batch := list(_next_batch(new)):
        if options.label and not filler.counts["images"] and not any(one.labels for one in batch):
            raise UserError(
                f"--label {options.label}: no label in the first {count_of(len(batch), 'image')}; "
                "choose another column or key"
            )
        rows = [item.row.to_json() for item in batch]
        with JsonlAppender(dataset.url_manifest) as urls:
            urls.append(*(row for row in rows if row["key"] not in listed))
        part = next_part(dataset)
        write_plan(dataset, part, rows)
        filler.fill(part, {item.key for item in batch}, iter(batch))


def _failed_keys(dataset: DatasetPaths, parts: list[str]) -> Iterator[str]:
    """Yield the keys of the images that failed."""
    for part in parts:
        if not is_complete(dataset, part) or read_summary(PartFiles(dataset, part))["failed"]:
            yield from (line["key"] for line in read_journal(dataset, part) if not line["ok"])


def _new_images(items: Items, known: set[str], filler: _PartFiller) -> Iterator[ImportedImage]:
    """Yield the images that are not in the dataset yet; log failures and what was skipped."""
    for item in items:
        if isinstance(item, Skipped):
            filler.skip(item)
            continue
        if isinstance(item, Failure):
            filler.fail(item)
            continue
        key = item.key
        if key in filler.completed:
            filler.completed.remove(key)
        elif key in filler.failed_before:
            filler.counts["failed_before"] += 1
        elif key in known:
            filler.counts["known"] += 1
        else:
            known.add(key)
            yield item


def _next_batch(items: Iterator[ImportedImage]) -> Iterator[ImportedImage]:
    """Yield the images of one part."""
    held = 0
    for item in islice(items, PART_SIZE):
        yield item
        held += item.held
        if held > _MAX_HELD:
            return


class _PartFiller:
    """Fills parts with images and counts the outcomes. Threads decode; parts are written in
    order."""

    def __init__(
        self, dataset: DatasetPaths, log: EventLog, reader: ImageReader, pool: ThreadPoolExecutor
    ) -> None:
        self.counts = {"images": 0, "known": 0, "failed": 0, "failed_before": 0}
        self.completed: set[str] = set()
        self.failed_before: set[str] = set()
        self.log = log
        self._dataset, self._reader, self._pool = dataset, reader, pool

    def fill(self, part: str, planned: set[str], items: Items) -> set[str]:
        """Add the images that a part lacks, and return the keys of those that were read. The part
        is complete once it has all that were planned."""
        with closing(PartWriter(self._dataset, part)) as writer:
            before = set(writer.done)
            for item, data, outcome in self._measured(_pick(items, planned - before)):
                failed = outcome if isinstance(outcome, Failure) else None
                if not isinstance(outcome, Failure):
                    failed = _add(writer, item, data, outcome)
                if failed is None:
                    self.counts["images"] += 1
                else:
                    writer.add_failure(item.key, failed)
                    self.fail(failed)
                self.log.progress(STAGE, sum(self.counts.values()), None, "images")
            if planned <= writer.done:
                writer.finish()
            return writer.done - before

    def _measured(
        self, items: Iterator[ImportedImage]
    ) -> Iterator[tuple[ImportedImage, bytes, Outcome]]:
        """Yield the images in order with their bytes and properties."""
        waiting = deque[tuple[ImportedImage, bytes, Future[Outcome]]]()
        ahead = 0
        for item in items:
            data = self._reader.read(item)
            if isinstance(data, Failure):
                outcome: Future[Outcome] = Future()
                outcome.set_result(data)
                waiting.append((item, b"", outcome))
            else:
                waiting.append((item, data, self._pool.submit(self._reader.measure, item, data)))
                ahead += len(data)
            while len(waiting) > 2 * decoding_threads() or ahead > _MAX_AHEAD:
                first, data, outcome = waiting.popleft()
                ahead -= len(data)
                yield first, data, outcome.result()
        for first, data, outcome in waiting:
            yield first, data, outcome.result()

    def skip(self, skipped: Skipped) -> None:
        self.log.emit(STAGE, "images skipped", **vars(skipped))

    def fail(self, failed: Failure) -> None:
        self.counts["failed"] += 1
        self.log.log_failure(failed)


def _add(
    writer: PartWriter, item: ImportedImage, data: bytes, properties: ImageProperties
) -> Failure | None:
    """Add one image to its part, or return its failure; errors of one image are caught here."""
    row = item.row
    try:
        extension = EXTENSIONS[properties.format]
        writer.add(row, extension, data, properties.recorded(), {"imported": True})
    except OSError:  # an error of this machine, not of the image
        raise
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        return internal_failure(STAGE, row.url, error, row.key)
    return None

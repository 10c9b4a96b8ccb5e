"""Exports and imports the URL manifest as Parquet, CSV or JSON Lines, for other downloaders.

An export has one column per field of a row (lists in Parquet and JSON Lines; in CSV, `labels` are
joined by `|` and `boxes` are JSON), so img2dataset reads it with `url_col=url, caption_col=title`.
An import may have the columns of this project, img2dataset, LAION or DataComp.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.atomic_io import atomic_file
from pipeline.contract import DatasetPaths, ManifestRow, image_key, now_utc
from pipeline.crawl.manifest_lookup import batches, manifest_rows
from pipeline.crawl.state import open_crawl_state
from pipeline.errors import UserError
from pipeline.forgotten import read_forgotten
from pipeline.outside_text import REPLACEMENT
from pipeline.sources.interface import CorruptFile, Notes, Page
from pipeline.sources.list_files import arrow, list_format, records_of
from pipeline.sources.list_options import ListSource
from pipeline.sources.url_list import parse, start
from pipeline.units import count_of
from pipeline.web.urls import canonical_url

ROW_GROUP = 50_000
NAMES = tuple(one.name for one in fields(ManifestRow))


@dataclass(frozen=True)
class ManifestImportResult:
    """The numbers of rows `read` from a file, `added` to the manifest, and `skipped` by reason, and
    the first example of each reason."""

    read: int
    added: int
    skipped: dict[str, int]
    examples: dict[str, str] = field(default_factory=dict, compare=False)


def export_manifest(dataset: DatasetPaths, path: Path) -> int:
    """Write the manifest to `path` (.parquet, .csv or .jsonl). Return the number of rows.

    Forgotten images are excluded.

    Raises:
        UserError: the extension is unknown, or the manifest does not exist.
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path}: unknown extension; choose from .parquet, .csv and .jsonl")
    if not dataset.url_manifest.exists():
        raise UserError(f"{dataset.url_manifest}: no such manifest")
    count = 0
    forgotten = read_forgotten(dataset).keys

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in manifest_rows(dataset):
            if row.key not in forgotten:
                count += 1
                yield row.to_json()

    with atomic_file(path) as file:
        writer(file, rows())
    return count


def _write_parquet(file: IO[bytes], rows: Iterator[dict[str, Any]]) -> None:
    pyarrow, parquet = arrow()
    text = pyarrow.string()
    lists = {
        "labels": pyarrow.list_(text),
        "page_opt_out": pyarrow.list_(text),
        "boxes": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
    }
    schema = pyarrow.schema([(name, lists.get(name, text)) for name in NAMES])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches(rows, ROW_GROUP):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def _write_csv(file: IO[bytes], rows: Iterator[dict[str, Any]]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.DictWriter(text, NAMES, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        boxes = json.dumps(row["boxes"]) if row.get("boxes") else ""
        lists = {name: "|".join(row.get(name, ())) for name in ("labels", "page_opt_out")}
        writer.writerow({**row, **lists, "boxes": boxes})
    text.flush()
    text.detach()


def _write_jsonl(file: IO[bytes], rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def import_manifest(
    dataset: DatasetPaths, path: Path, *, license: str = "", attribution: str = ""
) -> ManifestImportResult:
    """Add the rows of `path` that are not yet in the manifest. The file may be larger than memory.

    A file with the columns `url` and `found` is treated as a manifest of this project, and its
    pages and times are kept. `license` and `attribution` apply to rows without their own. Invalid
    rows are skipped and counted by reason.

    Raises:
        UserError: the file does not exist, has an unknown format or no column of URLs, or ends
            early; the rows before that are added.
    """
    notes = Notes()
    counts = {"read": 0, "added": 0}
    with open_crawl_state(dataset) as state:
        try:
            for batch in batches(_rows(path, license, attribution, notes)):
                counts["read"] += len(batch)
                counts["added"] += state.add_external(batch)
        except CorruptFile as error:
            raise UserError(
                f"{path}: {error}; added before that: {count_of(counts['added'], 'new row')}"
            ) from None
    known = counts["read"] - counts["added"]
    return ManifestImportResult(
        **counts,
        skipped={**notes, **({"known": known} if known else {})},
        examples=notes.examples,
    )


def _rows(path: Path, license: str, attribution: str, notes: Notes) -> Iterator[ManifestRow]:
    source = ListSource(start=(str(path),), license=license, attribution=attribution)
    queue = start(source)
    if path.is_file() and {"url", "found"} <= _first_record(path).keys():
        yield from notes.each(
            records_of(path, notes),
            partial(_own_row, license, attribution, notes),
            (ValueError, RecursionError),
        )
        return
    now = now_utc()
    while queue:
        result = parse(source, Page(queue.pop(0)))
        if result.error:
            raise UserError(f"{path}: {result.error}")
        for found in result.images:
            yield found.row("", now)
        queue += result.follow
        notes.merge(result.skipped)


def _first_record(path: Path) -> Mapping[str, Any]:
    if list_format(path) not in ("parquet", "jsonl"):
        return {}
    return next(records_of(path, Notes()), {})


def _own_row(
    license: str, attribution: str, notes: Notes, record: Mapping[str, Any]
) -> Iterator[ManifestRow]:
    """Yield the row of a record of an exported manifest.

    Raises:
        ValueError: a field has the wrong type.
    """
    text = record.get("url")
    url = None
    if isinstance(text, str) and REPLACEMENT not in text:
        url = canonical_url(text) or _file_url(text)
    if url is None:
        notes.add("not_http" if text else "no_url", text or None)
        return
    row = ManifestRow.from_json({**record, "url": url, "key": image_key(url)})
    yield replace(row, license=row.license or license, attribution=row.attribution or attribution)


def _file_url(text: str) -> str | None:
    return text if text.startswith("file:///") and text.isascii() else None

"""The URL manifest in and out, as Parquet, CSV or JSON Lines, for other downloaders and from them.

What goes out has a column for each member of a row (lists in Parquet and JSON Lines; in CSV
`labels` joined by `|` and `boxes` as JSON), so img2dataset reads it with `url_col=url,
caption_col=title`. What comes in may have the columns of img2dataset, LAION or DataComp, or ours.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

from pipeline.contract import Dataset, ManifestRow, image_key, now_utc
from pipeline.durable import atomic_file, read_jsonl
from pipeline.errors import UserError
from pipeline.sources.interface import Page
from pipeline.sources.listing import FORMATS, ListSource, parse, start
from pipeline.stages.crawl_images import batches
from pipeline.stages.crawl_journal import open_journal
from pipeline.web.urls import canonical_url

ROW_GROUP = 50_000
NAMES = tuple(one.name for one in fields(ManifestRow))


@dataclass(frozen=True)
class ImportResult:
    """Rows `read` from a file, those `added` to the manifest, and what was not taken, by reason."""

    read: int
    added: int
    passed_over: dict[str, int]


def export_manifest(dataset: Dataset, path: Path) -> int:
    """Write the manifest to `path` (.parquet, .csv, .jsonl by its ending); the number of rows.

    Raises:
        UserError: the ending is none of these, or there is no manifest.
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path}: write to .parquet, .csv or .jsonl")
    if not dataset.urls.exists():
        raise UserError(f"{dataset.urls}: no such manifest")
    count = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in read_jsonl(dataset.urls):
            count += 1
            yield ManifestRow.from_json(row).to_json()

    with atomic_file(path) as file:
        writer(file, rows())
    return count


def _write_parquet(file: IO[bytes], rows: Iterator[dict[str, Any]]) -> None:
    pyarrow, parquet = _arrow()
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


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install shellgan[parquet]") from None
    return pyarrow, parquet


def import_manifest(
    dataset: Dataset, path: Path, *, license: str = "", attribution: str = ""
) -> ImportResult:
    """Add the rows of `path` that are not in the manifest yet; it may be larger than memory.

    A file with the columns `url` and `found` is taken for a manifest of our own and keeps its
    pages and times. `license` and `attribution` hold for rows without their own.

    Raises:
        UserError: the file is not there, of an unknown format, or has no column of URLs.
    """
    passed_over: dict[str, int] = {}
    counts = {"read": 0, "added": 0}
    with open_journal(dataset) as journal:
        for batch in batches(_rows(path, license, attribution, passed_over)):
            counts["read"] += len(batch)
            counts["added"] += journal.add_foreign(batch)
    known = counts["read"] - counts["added"]
    return ImportResult(
        **counts, passed_over={**passed_over, **({"known": known} if known else {})}
    )


def _rows(
    path: Path, license: str, attribution: str, notes: dict[str, int]
) -> Iterator[ManifestRow]:
    if FORMATS.get(path.suffix.lower()) in ("parquet", "jsonl") and path.is_file():
        first = next(_records(path), {})
        if {"url", "found"} <= first.keys():
            yield from _own_rows(path, license, attribution, notes)
            return
    now = now_utc()
    source = ListSource(start=(str(path),), license=license, attribution=attribution)
    queue = start(source)
    while queue:
        result = parse(source, Page(queue.pop(0)))
        if result.problem:
            raise UserError(f"{path}: {result.problem}")
        for found in result.rows:
            yield found.row("", now)
        queue += result.follow
        for reason, count in result.notes.items():
            notes[reason] = notes.get(reason, 0) + count


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() != ".parquet":
        yield from read_jsonl(path)
        return
    pyarrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(ROW_GROUP // 5):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not Parquet ({error})") from None


def _own_rows(
    path: Path, license: str, attribution: str, notes: dict[str, int]
) -> Iterator[ManifestRow]:
    for record in _records(path):
        text = record.get("url")
        url = (canonical_url(text) or _file_url(text)) if isinstance(text, str) else None
        if url is None:
            notes["not_http"] = notes.get("not_http", 0) + 1
            continue
        row = ManifestRow.from_json({**dict.fromkeys(NAMES, ""), **record})
        yield replace(
            row,
            url=url,
            key=image_key(url),
            license=row.license or license,
            attribution=row.attribution or attribution,
        )


def _file_url(text: str) -> str | None:
    return text if text.startswith("file:///") else None

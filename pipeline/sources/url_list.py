"""Lists of image URLs: text, CSV, JSON Lines and Parquet, with the columns of other tools.

Lists may be larger than memory. A remote list is first copied to the disk. Text is read in chunks
of `CHUNK_ROWS` records and Parquet by row groups, so an interruption loses one chunk; gzipped
text, text in UTF-16 and JSON arrays are read in one pass.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.reading import open_regular
from pipeline.sources.interface import (
    Adapter,
    CorruptFile,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.list_files import (
    BROKEN,
    FORMATS,
    array_records,
    arrow,
    csv_records,
    json_records,
    plain_records,
    without_gz,
)
from pipeline.sources.list_options import ListSource
from pipeline.sources.list_rows import find_columns, read_rows
from pipeline.sources.text_lines import Lines, is_packed, unpack_text
from pipeline.web.local_files import argument_path, file_path, file_url
from pipeline.web.urls import canonical_url

CHUNK_ROWS = 10_000
"""Number of records of a text file, or rows of a Parquet file, to read at a time."""


def start(config: ListSource) -> list[PageRequest]:
    """Return requests for the files.

    Raises:
        UserError: a file does not exist, or its format is unknown.
    """
    found = []
    for text in config.start:
        url = canonical_url(text)
        if url:
            found.append(PageRequest(url))
            continue
        path = argument_path(text, "list does not exist")
        if path.is_dir():
            paths = sorted(one for one in path.iterdir() if _is_list(one))
        elif path.is_file():
            paths = [path]
        else:  # a FIFO or device may be endless, and cannot be read from an offset
            raise UserError(f"{path}: not a regular file; write the list to a file first")
        found += [PageRequest(file_url(one.resolve())) for one in paths]
    for request in found:
        _format(config, request.url)
    return found


def _is_list(path: Path) -> bool:
    suffix = without_gz(path.name).suffix.lower()
    return suffix in FORMATS and suffix != ".json" and path.is_file()  # often of other content


def _format(config: ListSource, url: str) -> str:
    name = urlsplit(url).path
    kind = config.format or FORMATS.get(without_gz(name).suffix.lower())
    if kind is None:
        raise UserError(
            f"{name}: unknown format; set source.format to txt, csv, tsv, jsonl, json or parquet"
        )
    return kind


def parse(config: ListSource, page: Page) -> PageResult:
    """Return the images of one chunk of a list, and the request for the next chunk."""
    url = page.request.url
    kind = _format(config, url)
    path = page.path or (file_path(url)[0] if url.startswith("file:") else None)
    try:
        if kind == "parquet":
            return _parquet(config, page, path or io.BytesIO(page.body))
        with _open_list(path, page) as file:
            if kind != "json" and not is_packed(file.read(4)):
                return _text(config, page, kind, file, CHUNK_ROWS if path else None)
        return _whole(config, page, kind, path)
    except BROKEN as error:
        return PageResult(error=f"{type(error).__name__}: {error}")


def _open_list(path: Path | None, page: Page) -> IO[bytes]:
    return os.fdopen(open_regular(path), "rb") if path else io.BytesIO(page.body)


def _raise_corrupt(
    rows: Iterable[FoundImage], errors: tuple[type[Exception], ...]
) -> Iterator[FoundImage]:
    try:
        yield from rows
    except errors as error:
        raise CorruptFile(f"{type(error).__name__}: {error}") from error


# text


def _text(
    config: ListSource, page: Page, kind: str, file: IO[bytes], size: int | None
) -> PageResult:
    context = page.request.context
    notes = Notes()
    lines = Lines(file, int(context.get("offset", 0)), notes)
    records, header = _records(kind, lines, context.get("header"), notes)
    if header is not None and not find_columns(config, header)["url"]:
        return PageResult(error=_no_urls(header))
    count = 0

    def counted_records() -> Iterator[Mapping[str, Any]]:
        nonlocal count
        for record in islice(records, size):  # records may be large and are not kept
            count += 1
            yield record

    rows = list(read_rows(config, counted_records(), notes))
    if not (count or notes or context):
        notes.add("empty")
    if count < (size or 0):
        return PageResult(rows, skipped=notes)
    follow = [_next_chunk(page.request, offset=lines.offset, header=header)] if size else []
    return PageResult(rows, follow, notes)


def _records(
    kind: str, lines: Lines, header: list[str] | None, notes: Notes
) -> tuple[Iterator[Mapping[str, Any]], list[str] | None]:
    """Return the records of a text, and the column names if it has a header line."""
    if kind == "txt":
        return ({"url": line.strip()} for line in lines), None
    if kind == "jsonl":
        return json_records(lines, notes), None
    rows = csv_records(lines, "\t" if kind == "tsv" else ",", notes)
    names = next(rows, []) if header is None else header
    return (dict(zip(names, row, strict=False)) for row in rows), names


def _no_urls(names: Iterable[str]) -> str:
    listed = ", ".join(names)[:200]
    return (
        f"no column of URLs among: {listed}"
        if listed
        else "no column of URLs: there is no header line"
    )


def _whole(config: ListSource, page: Page, kind: str, path: Path | None) -> PageResult:
    """Read a whole text that cannot be read from an offset: gzipped, in UTF-16, a JSON array."""
    opened = _open_list(path, page)
    notes = Notes()
    most = config.max_gb * 1e9
    header: list[str] | None = None
    try:
        file = unpack_text(opened, notes)
        if kind == "json":
            records = array_records(file, notes, most)
        else:
            records, header = _records(kind, Lines(file, 0, notes, most), None, notes)
    except BaseException:
        opened.close()
        raise
    if header is not None and not find_columns(config, header)["url"]:
        opened.close()
        return PageResult(error=_no_urls(header))

    def rows() -> Iterator[FoundImage]:
        with opened:
            is_empty = True
            for row in read_rows(config, records, notes):
                is_empty = False
                yield row
            if is_empty and not notes:
                notes.add("empty")

    return PageResult(_raise_corrupt(rows(), BROKEN), skipped=notes)


def _next_chunk(request: PageRequest, **context: Any) -> PageRequest:
    """Return the request for the next chunk of a file: the same URL with the chunk number as its
    fragment."""
    number = int(request.context.get("piece", 0)) + 1
    url = f"{request.url.partition('#')[0]}#{number}"
    return replace(request, url=url, context={"piece": number, **context})


# Parquet


def _parquet(config: ListSource, page: Page, file: Path | IO[bytes]) -> PageResult:
    pyarrow, parquet = arrow()
    broken = (pyarrow.ArrowException, *BROKEN, ValueError)
    try:
        if isinstance(file, Path):
            os.close(open_regular(file))
        opened = parquet.ParquetFile(file, pre_buffer=False)
        names = opened.schema_arrow.names
    except broken as error:
        return PageResult(error=f"not Parquet ({error})")
    chosen = find_columns(config, names)
    if not chosen["url"]:
        opened.close()
        return PageResult(error=_no_urls(names))
    group = int(page.request.context.get("group", 0))
    columns = sorted({name for several in chosen.values() for name in several})
    last = group + 1 >= opened.num_row_groups
    notes = Notes()

    def records() -> Iterator[Mapping[str, Any]]:
        with opened:
            if group < opened.num_row_groups:
                for batch in opened.iter_batches(CHUNK_ROWS, row_groups=[group], columns=columns):
                    yield from plain_records(batch)

    follow = [] if last else [_next_chunk(page.request, group=group + 1)]
    rows = _raise_corrupt(read_rows(config, records(), notes), broken)
    return PageResult(rows, follow, notes)


LIST = Adapter(ListSource, start, parse, max_copy_bytes=lambda config: int(config.max_gb * 1e9))

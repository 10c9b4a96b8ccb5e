"""Lists of image URLs: text, CSV, JSON Lines, Parquet, in the columns that others write.

Lists may be larger than memory. One at an http address is copied to the disk first. Text is read in
pieces of `PIECE` lines and Parquet by its row groups, so a kill costs one piece; a gzipped one is
read in one go.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.sources.interface import (
    Adapter,
    BrokenFile,
    Found,
    Limits,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.picks import Pattern, clean
from pipeline.sources.url_rules import admitted
from pipeline.typed import STRICT
from pipeline.web.local_files import file_path, file_url
from pipeline.web.urls import canonical_url

PIECE = 10_000
"""Records of a text file, or rows of a Parquet file, that are read at a time."""

_GZIP = b"\x1f\x8b"
FORMATS = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip

COLUMNS = {
    "url": ("url", "URL", "image_url", "Image URL", "OriginalURL", "identifier", "link"),
    "title": ("title", "caption", "TEXT", "text", "TITLE", "alt", "ALT_TEXT"),
    "license": ("license", "LICENSE", "License", "rights"),
    "attribution": ("attribution", "rightsHolder", "author", "Author", "creator"),
    "labels": ("labels", "label", "class"),
}
"""The columns tried for each of a row's members: our own manifest's, then img2dataset's, LAION's
(URL, TEXT, LICENSE), DataComp's (url, text) and Open Images'."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ListSource(Limits):
    """Files of image URLs, on the disk (also folders of them) or at an http(s) address.

    The format follows from the name's ending (before `.gz`) unless given; a text may be gzipped. A
    list of more than `max_gb` GB is not copied. Columns are found by their usual names
    unless given; several `labels` columns make several labels, a list in a column all of its own.
    Constant `license` and `attribution` hold where the file has none. Paths are relative to the
    folder the command runs in.
    """

    kind: Literal["list"] = "list"
    start: tuple[str, ...] = Field(min_length=1)
    format: Literal["txt", "csv", "tsv", "jsonl", "parquet"] | None = None
    max_gb: float = Field(default=64.0, gt=0)
    url: str | None = None
    title: str | None = None
    labels: tuple[str, ...] | None = None
    license_column: str | None = None
    attribution_column: str | None = None
    license: str = ""
    attribution: str = ""
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


def start(config: ListSource) -> list[PageRequest]:
    """The files.

    Raises:
        UserError: one is not there, or its format is unknown.
    """
    found = []
    for text in config.start:
        url = canonical_url(text)
        if url:
            found.append(PageRequest(url))
            continue
        path = Path(text)
        if not path.exists():
            raise UserError(f"{path}: no such list")
        paths = (
            sorted(one for one in path.iterdir() if _plain(one.name).suffix in FORMATS)
            if path.is_dir()
            else [path]
        )
        found += [PageRequest(file_url(one.resolve())) for one in paths]
    for request in found:
        _format(config, request.url)
    return found


def _format(config: ListSource, url: str) -> str:
    name = urlsplit(url).path
    kind = config.format or FORMATS.get(_plain(name).suffix.lower())
    if kind is None:
        raise UserError(f"{name}: say its format (txt, csv, tsv, jsonl, parquet)")
    return kind


def _plain(name: str) -> Path:
    """The name without the ending of a gzipped file."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def parse(config: ListSource, page: Page) -> PageResult:
    """The images of one piece of a list, and the piece after it."""
    url = page.request.url
    kind = _format(config, url)
    path = page.path or (file_path(url)[0] if url.startswith("file:") else None)
    try:
        if kind == "parquet":
            return _parquet(config, page, path or io.BytesIO(page.body))
        with path.open("rb") if path else io.BytesIO(page.body) as file:
            zipped = file.read(2) == _GZIP
            if not zipped:
                return _text(config, page, kind, file, PIECE if path else None)
        return _gzipped(config, page, kind, path)
    except (*_BROKEN, csv.Error) as error:
        return PageResult(problem=f"{type(error).__name__}: {error}")


_BROKEN = (OSError, EOFError, zlib.error)


def _unbroken(rows: Iterable[Found], errors: tuple[type[Exception], ...]) -> Iterator[Found]:
    try:
        yield from rows
    except errors as error:
        raise BrokenFile(f"{type(error).__name__}: {error}") from error


# text


class _Lines:
    """The lines of a file as text, counting the bytes they take."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        file.seek(offset)
        self._file = file
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.offset += len(line)
            yield line.decode("utf-8-sig" if self.offset == len(line) else "utf-8", "replace")


def _text(
    config: ListSource, page: Page, kind: str, file: IO[bytes], size: int | None
) -> PageResult:
    context = page.request.context
    lines = _Lines(file, int(context.get("offset", 0)))
    notes: dict[str, int] = {}
    records, header = _records(kind, lines, context.get("header"), notes)
    if header is not None and not _columns(config, header)["url"]:
        return PageResult(problem=_no_urls(header))
    taken = list(islice(records, size))
    rows = list(_rows(config, taken, notes))
    if len(taken) < (size or 0):
        return PageResult(rows, notes=notes)
    follow = [_piece(page.request, offset=lines.offset, header=header)] if size else []
    return PageResult(rows, follow, notes)


def _records(
    kind: str, lines: _Lines, header: list[str] | None, notes: dict[str, int]
) -> tuple[Iterator[Mapping[str, Any]], list[str] | None]:
    """The records of a text, and the names of its columns where a line says them."""
    if kind == "txt":
        return ({"url": line.strip()} for line in lines), None
    if kind == "jsonl":
        return _json_records(lines, notes), None
    reader = csv.reader(lines, delimiter="\t" if kind == "tsv" else ",")
    names = next(_csv_records(reader, notes), []) if header is None else header
    return (dict(zip(names, row, strict=False)) for row in _csv_records(reader, notes)), names


def _no_urls(names: Iterable[str]) -> str:
    return f"no column of URLs among: {', '.join(names)[:200]}"


def _gzipped(config: ListSource, page: Page, kind: str, path: Path | None) -> PageResult:
    """All of a gzipped text: there is no way into its middle."""
    opened = path.open("rb") if path else io.BytesIO(page.body)
    file = gzip.GzipFile(fileobj=opened)
    notes: dict[str, int] = {}
    try:
        records, header = _records(kind, _Lines(cast(IO[bytes], file), 0), None, notes)
    except BaseException:
        opened.close()
        raise
    if header is not None and not _columns(config, header)["url"]:
        opened.close()
        return PageResult(problem=_no_urls(header))

    def rows() -> Iterator[Found]:
        with opened, file:
            yield from _rows(config, records, notes)

    return PageResult(_unbroken(rows(), _BROKEN), notes=notes)


def _piece(request: PageRequest, **context: Any) -> PageRequest:
    """The next piece of a file: the same URL with what sets it apart as its fragment."""
    number = int(request.context.get("piece", 0)) + 1
    url = f"{request.url.partition('#')[0]}#{number}"
    return replace(request, url=url, context={"piece": number, **context})


def _csv_records(reader: Iterator[list[str]], notes: dict[str, int]) -> Iterator[list[str]]:
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            notes["bad_line"] = notes.get("bad_line", 0) + 1
            continue
        if row is None:
            return
        if row:
            yield row


def _json_records(lines: Iterable[str], notes: dict[str, int]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            notes["bad_line"] = notes.get("bad_line", 0) + 1


# Parquet


def _parquet(config: ListSource, page: Page, file: Path | IO[bytes]) -> PageResult:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install shellgan[parquet]") from None
    try:
        opened = parquet.ParquetFile(file, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        return PageResult(problem=f"not Parquet ({error})")
    names = opened.schema_arrow.names
    chosen = _columns(config, names)
    if not chosen["url"]:
        opened.close()
        return PageResult(problem=_no_urls(names))
    group = int(page.request.context.get("group", 0))
    columns = sorted({name for several in chosen.values() for name in several})
    last = group + 1 >= opened.num_row_groups
    notes: dict[str, int] = {}

    def records() -> Iterator[Mapping[str, Any]]:
        with opened:
            if group < opened.num_row_groups:
                for batch in opened.iter_batches(PIECE, row_groups=[group], columns=columns):
                    yield from batch.to_pylist()

    follow = [] if last else [_piece(page.request, group=group + 1)]
    rows = _unbroken(_rows(config, records(), notes), (pyarrow.ArrowException, *_BROKEN))
    return PageResult(rows, follow, notes)


# rows


def _columns(config: ListSource, names: Iterable[str]) -> dict[str, list[str]]:
    """Which of a file's columns hold what."""
    there = list(names)
    given = {
        "url": config.url, "title": config.title, "license": config.license_column,
        "attribution": config.attribution_column,
    }  # fmt: skip
    chosen = {}
    for member, usual in COLUMNS.items():
        name = given.get(member)
        wanted = [name] if name else [one for one in usual if one in there][:1]
        chosen[member] = [one for one in wanted if one in there]
    if config.labels is not None:
        chosen["labels"] = [one for one in config.labels if one in there]
    return chosen


def _rows(
    config: ListSource, records: Iterable[Mapping[str, Any]], notes: dict[str, int]
) -> Iterator[Found]:
    columns: dict[str, list[str]] | None = None
    names: object = None
    for record in records:
        if columns is None or record.keys() != names:
            columns, names = _columns(config, record), record.keys()
        text = _value(record, columns["url"])
        url = canonical_url(text) if text else None
        if url is None:
            reason = "not_http" if text else "no_url"
            notes[reason] = notes.get(reason, 0) + 1
        elif not admitted(url, config.include, config.exclude):
            notes["excluded"] = notes.get("excluded", 0) + 1
        else:
            yield Found(
                url,
                _value(record, columns["title"]),
                tuple(_labels(record, columns["labels"])),
                _value(record, columns["license"]) or config.license,
                _value(record, columns["attribution"]) or config.attribution,
            )


def _value(record: Mapping[str, Any], names: list[str]) -> str:
    value = record.get(names[0]) if names else None
    return "" if value is None else clean(str(value))


def _labels(record: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    for name in names:
        value = record.get(name)
        if isinstance(value, list | tuple):
            yield from (clean(str(one)) for one in value)
        else:
            yield "" if value is None else clean(str(value))


LIST = Adapter(ListSource, start, parse, copies=lambda config: int(config.max_gb * 1e9))

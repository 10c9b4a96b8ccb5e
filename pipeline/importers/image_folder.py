"""Reads images in folders and archives, with metadata in the format of Hugging Face `datasets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from posixpath import dirname, join, normpath
from typing import Any

from pipeline.contract import UserError
from pipeline.errors import Failure
from pipeline.importers.items import (
    SPLITS,
    ImportOptions,
    Items,
    Skipped,
    as_labels,
    as_text,
    broken_metadata,
    make_item,
)
from pipeline.importers.metadata_files import READERS
from pipeline.importers.tree import Tree, base_name
from pipeline.units import count_of


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    names = list(tree.images)
    if not names:
        return ""
    images = count_of(len(names), "image")
    if tables := _tables(tree):
        return f"images with {base_name(tables[0])}: {images}"
    layout = Layout(names)
    labels = {layout.labels(name)[:1] for name in names} - {()}
    found = f"{images}, {count_of(len(labels), 'label')}" if labels else f"{images}, no labels"
    splits = f", splits {', '.join(layout.splits)}" if layout.splits else ""
    return f"image folder: {found}{splits}"


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images. Their labels are the folders they are in, without a folder that contains
    all others and without splits (train, test, …). A metadata.csv, .jsonl or .parquet beside them
    takes precedence: images that it does not list are skipped, and counted at the end. A row
    without its image is a failure."""
    rows: dict[str, _Row] = {}
    tables = _tables(tree)
    for table in tables:
        yield from _read_table(tree, table, rows)
    if options.label and not tables:
        raise UserError(
            f"--label {options.label}: {tree.path} has no metadata.csv, .jsonl or .parquet"
        )
    if tables and not any(name in rows for name in tree.images):
        raise UserError(
            f"{tree.path}: {tables[0]}: lists none of the images; correct its column file_name, or "
            "remove it"
        )
    layout = Layout(list(tree.images))
    unlisted = []
    for name in tree.images:
        row = rows.pop(name, None)
        if not options.has_split(layout.split(name)):
            continue
        if tables and row is None:
            unlisted.append(name)  # for example an image of the dataset card
            continue
        values = row.values if row else {}
        labels = as_labels(values.get(options.label or "label")) if row else layout.labels(name)
        yield make_item(
            tree.files[name].url, partial(tree.read, name), labels, as_text(base_name(name)), values
        )
    for name, row in rows.items():
        if options.has_split(layout.split(name)):
            detail = f"line {row.number}: no such image: {as_text(row.values['file_name'])}"
            yield broken_metadata(row.url, detail)
    if unlisted:
        why = f"not listed in {base_name(tables[0])}; add rows to import them"
        yield Skipped(len(unlisted), as_text(unlisted[0]), why)


@dataclass(frozen=True)
class _Row:
    """A row of a metadata file."""

    url: str
    number: int
    values: dict[str, Any]


class Layout:
    """What the folders of images mean: an outer folder, splits, and labels."""

    def __init__(self, names: list[str]) -> None:
        folders = Counter(dirname(name) for name in names)
        self._outer = _outer_folders([_parts(folder) for folder in folders])
        inside = [_parts(folder)[self._outer :] for folder in folders]
        tops = {parts[0]: len(parts) for parts in inside if parts}
        splits = {top for top in tops if top.casefold() in SPLITS}
        loose = any(parts == [top] for parts in inside for top in splits)
        has_splits = bool(splits) and (not loose or splits == tops.keys()) and [] not in inside
        self.splits = sorted(tops) if has_splits else []
        """The names of the splits; empty if there are none."""

    def split(self, name: str) -> str:
        """Return the split of an image; empty if there are none."""
        return self._inside(name)[0] if self.splits and self._inside(name) else ""

    def labels(self, name: str) -> tuple[str, ...]:
        return as_labels(self._inside(name)[bool(self.splits) :])

    def _inside(self, name: str) -> list[str]:
        return _parts(dirname(name))[self._outer :]


def _parts(folder: str) -> list[str]:
    return [part for part in folder.split("/") if part not in ("", ".", "..")]


def _outer_folders(folders: list[list[str]]) -> int:
    """Return the number of outermost folders that contain all images and further folders. A split
    is none of them, also if it is the only one."""
    count = 0
    while (
        folders
        and all(len(parts) > count + 1 for parts in folders)
        and len({parts[count] for parts in folders}) == 1
        and folders[0][count].casefold() not in SPLITS
    ):
        count += 1
    return count


def _tables(tree: Tree) -> list[str]:
    return [
        name for name in tree.files
        if base_name(name).rpartition(".")[0] == "metadata" and _suffix(name) in READERS
    ]  # fmt: skip


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].casefold()


def _read_table(tree: Tree, table: str, found: dict[str, _Row]) -> Iterator[Failure]:
    """Add the rows of a metadata file, by image; yield the failures of its rows."""
    url = tree.files[table].url
    for number, row in READERS[_suffix(table)](tree, table):
        if not isinstance(row, str) and not isinstance(row.get("file_name"), str):
            row = _no_file_name(row)
        place = f"{url}#{number}"
        if isinstance(row, str):
            yield broken_metadata(place, f"line {number}: {row}")
        else:
            name = join(dirname(table), row["file_name"].replace("\\", "/"))
            found[normpath(name)] = _Row(place, number, row)


def _no_file_name(row: dict[str, Any]) -> str:
    if "file_name" in row:
        return f"file_name: not text, but {row['file_name']!r:.60}"
    found = ", ".join(repr(name) for name in row if name is not None)
    return f"file_name: missing; columns found: {found[:200]}"

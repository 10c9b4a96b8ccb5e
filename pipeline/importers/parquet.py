"""Reads images in Parquet and Arrow files: Hugging Face datasets and img2dataset's output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from posixpath import dirname, join, normpath
from typing import Any

from pipeline.contract import Box, UserError
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    LABEL_KEYS,
    STAGE,
    ImportOptions,
    Items,
    as_text,
    box_of_size,
    broken_metadata,
    label_of_number,
    make_item,
    sort_objects,
    split_name,
)
from pipeline.importers.tree import Tree, base_name, describe_files, is_image
from pipeline.sources.list_files import BROKEN, arrow, plain_records
from pipeline.units import count_of
from pipeline.web.failures import failure

BATCH = 64
"""Rows to read at a time; a row contains an image."""
_SUFFIXES = (".parquet", ".arrow")


@dataclass(frozen=True)
class Columns:
    """The columns of a file: that of the images, and the class names of numbered columns and of the
    categories of `objects`."""

    image: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    categories: Sequence[str] = ()


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    return describe_files(tree, image_tables(tree), "parquet", "images in Parquet or Arrow")


def image_tables(tree: Tree) -> list[str]:
    """Return the names of the files of tables, if the first one has a column of images.

    Raises:
        UserError: pyarrow is not installed.
    """
    names = [name for name in tree.files if _suffix(name) in _SUFFIXES]
    for name in names:
        if base_name(name).startswith("metadata."):
            return []
        try:
            with closing(_Table(tree, name)) as table:
                return names if table.columns.image else []
        except _broken():
            continue
    return []


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images of all rows. Labels are in the column `options.label`, or else in the first
    of `LABEL_KEYS`, or else in a ClassLabel column; numbers become the names of a ClassLabel."""
    for name in tree.files:
        if _suffix(name) not in _SUFFIXES:
            continue
        split = _split(name)
        if not options.has_split(split):
            continue
        url = tree.files[name].url
        number = 0
        try:
            with closing(_Table(tree, name)) as table:
                if options.label and options.label not in table.names:
                    raise UserError(
                        f"{tree.path}: {name}: no column {options.label!r}; choose from "
                        f"{', '.join(table.names)}"
                    )
                for number, row in enumerate(table.rows()):
                    yield from _row(tree, name, table.columns, number, row, options)
        except _broken() as error:
            detail = error.detail if isinstance(error, ImageError) else str(error)
            yield failure(
                STAGE,
                url,
                "damaged",
                detail=f"not a complete table, after {count_of(number, 'row')}: {detail}",
            )


def _broken() -> tuple[type[Exception], ...]:
    pyarrow, _ = arrow()
    return (pyarrow.ArrowException, *BROKEN, ImageError, ValueError)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _split(name: str) -> str:
    """Return the split in a file's name, such as train-00000-of-00002.parquet, or in its
    folder's."""
    stem = base_name(name).partition(".")[0].partition("-")[0].partition("_")[0]
    folder = base_name(dirname(name))
    return stem if split_name(stem) in ("train", "test", "val") else folder


class _Table:
    """An open Parquet or Arrow file."""

    def __init__(self, tree: Tree, name: str) -> None:
        pyarrow, parquet = arrow()
        self._file = tree.open(name)
        self._rows: Callable[[], Iterator[dict[str, Any]]]
        try:
            if _suffix(name) == ".parquet":
                opened = parquet.ParquetFile(self._file, pre_buffer=False)
                schema, self._rows = opened.schema_arrow, lambda: _rows(opened.iter_batches(BATCH))
            else:
                stream = _open_arrow(pyarrow, self._file)
                schema, self._rows = stream.schema, lambda: _rows(_slices(stream))
        except BaseException:
            self._file.close()
            raise
        self.names = list(schema.names)
        self.columns = _find_columns(pyarrow, schema)

    def rows(self) -> Iterator[dict[str, Any]]:
        return self._rows()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open_arrow(pyarrow: Any, file: Any) -> Any:
    """Open Arrow's stream or file format."""
    try:
        return pyarrow.ipc.open_stream(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        opened = pyarrow.ipc.open_file(file)
        return _Batches(opened.schema, opened)


@dataclass(frozen=True)
class _Batches:
    schema: Any
    opened: Any

    def __iter__(self) -> Iterator[Any]:
        return (self.opened.get_batch(n) for n in range(self.opened.num_record_batches))


def _slices(stream: Any) -> Iterator[Any]:
    for batch in stream:
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _rows(batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from plain_records(batch)


def _find_columns(pyarrow: Any, schema: Any) -> Columns:
    """Return the columns, by the features that `datasets` writes into the file's metadata, or
    else by their types: binary, or a struct of bytes and path."""
    features = _features(schema.metadata or {})
    names = {
        key: value["names"] for key, value in features.items()
        if value.get("_type") == "ClassLabel" and isinstance(value.get("names"), list)
    }  # fmt: skip
    image = next((key for key, one in features.items() if one.get("_type") == "Image"), "")
    types = pyarrow.types
    for one in schema:
        is_struct = types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0
        is_binary = types.is_binary(one.type) or types.is_large_binary(one.type)
        if not image and (is_struct or (is_binary and _is_image_name(one.name))):
            image = one.name
    return Columns(image if image in schema.names else "", names, _category_names(features))


def _category_names(features: Mapping[str, Any]) -> list[str]:
    """Return the names of the categories in an `objects` column."""
    category = features.get("objects", {}).get("category")
    while isinstance(category, dict) and "feature" in category:
        category = category["feature"]
    names = category.get("names") if isinstance(category, dict) else None
    return names if isinstance(names, list) else []


def _is_image_name(name: str) -> bool:
    return is_image(f"x.{name}") or name.casefold() in ("image", "img", "image_bytes", "bytes")


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    try:
        values = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {key: one for key, one in values.items() if isinstance(one, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _row(
    tree: Tree, name: str, columns: Columns, number: int, row: dict[str, Any],
    options: ImportOptions,
) -> Items:  # fmt: skip
    place = f"{tree.files[name].url}#{number}"
    value = row.get(columns.image)
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
    if data is None and not path:
        if row.get("status", "success") == "success":  # img2dataset lists failed downloads too
            yield broken_metadata(place, f"row {number}: no image")
        return
    if isinstance(data, bytes):
        read_image: Callable[[int], bytes] = partial(_limited, data)
    else:
        inside = normpath(join(dirname(name), str(path)))
        if inside not in tree.files:
            yield failure(STAGE, place, "not_found", detail=f"row {number}: no file {path!s:.200}")
            return
        read_image = partial(tree.read, inside)
    values = {key: one for key, one in row.items() if isinstance(one, str)}
    values.setdefault("caption", values.get("text") or values.get("prompt") or "")
    boxes, box_labels = _boxes(row.get("objects"), columns.categories)
    labels = _row_labels(row, columns, options.label) or box_labels
    title = base_name(path) if isinstance(path, str) and path else f"{base_name(name)} {number}"
    yield make_item(place, read_image, labels, as_text(title), values, boxes,
                    held=len(data) if isinstance(data, bytes) else 0)  # fmt: skip


def _limited(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ImageError("too_large", f"{len(data)} bytes, over {most}")
    return data


def _row_labels(row: dict[str, Any], columns: Columns, wanted: str) -> tuple[str, ...]:
    numbered = [key for key in columns.names if key not in LABEL_KEYS]
    keys = [wanted] if wanted else [*LABEL_KEYS, *numbered]
    key = next((key for key in keys if row.get(key) is not None), "")
    value = row.get(key)
    names = columns.names.get(key, ())
    if isinstance(value, list):
        return tuple(label for one in value for label in label_of_number(one, names))
    return label_of_number(value, names)


def _boxes(objects: object, names: Sequence[str]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Return the boxes of an `objects` column (x, y, width, height), as `datasets` stores COCO's,
    and their categories, the largest first."""
    if not isinstance(objects, dict):
        return (), ()
    values = objects.get("bbox") or ()
    categories = objects.get("category") or [""] * len(values)
    found = (
        ("".join(label_of_number(category, names)), box_of_size(box))
        for category, box in zip(categories, values, strict=False)
    )
    return sort_objects((name, box) for name, box in found if box is not None)

"""Reads images in LMDB databases, such as LSUN's; needs the package lmdb."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.contract import UserError
from pipeline.imaging.formats import image_format
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import STAGE, ImportOptions, Items, as_text, make_item
from pipeline.importers.members import FolderMember
from pipeline.importers.tree import Tree, base_name
from pipeline.units import count_of
from pipeline.web.failures import failure
from pipeline.web.local_files import file_url

_NAME = "data.mdb"
_RESOLUTION = re.compile(rb"(\d+)-\d{5,}")


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    names = _files(tree)
    return f"LMDB: {count_of(len(names), 'database')}" if names else ""


def _files(tree: Tree) -> list[Path]:
    return [
        member.path for name, member in tree.files.items()
        if base_name(name) == _NAME and isinstance(member, FolderMember)
    ]  # fmt: skip


def read(tree: Tree, _options: ImportOptions) -> Items:
    """Yield the values that are images. If keys begin with a resolution (256-00000), only the
    images of the highest one are read.

    Raises:
        UserError: lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError:
        raise UserError("LMDB needs lmdb: pip install shellgan[lmdb]") from None
    for path in _files(tree):
        try:
            yield from _images(lmdb, path)
        except (lmdb.Error, OSError, ValueError) as error:
            yield failure(STAGE, file_url(path), "damaged", detail=f"not an LMDB file ({error})")


def _images(lmdb: Any, path: Path) -> Items:
    database = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
    pages, size = database.info()["last_pgno"] + 1, database.stat()["psize"]
    if pages * size > path.stat().st_size:  # reading past the end would kill the process
        raise ValueError(f"truncated: {path.stat().st_size} bytes, {pages * size} by its header")
    resolution = _highest_resolution(database)
    with database.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            name = bytes(key)
            match = _RESOLUTION.fullmatch(name)
            if (match and match[1] != resolution) or image_format(bytes(value[:4096])) is None:
                continue
            title = as_text(name.decode(errors="backslashreplace"))
            yield make_item(file_url(path, title), partial(_value, database, name), (), title, {})


def _highest_resolution(database: Any) -> bytes:
    found = set[bytes]()
    with suppress(IndexError), database.begin() as transaction:
        for key in transaction.cursor().iternext(keys=True, values=False):
            if match := _RESOLUTION.fullmatch(key):
                found.add(match[1])
    return max(found, key=int, default=b"")


def _value(database: Any, key: bytes, most: int) -> bytes:
    with database.begin(buffers=True) as transaction:
        value = transaction.get(key)
        if value is None:
            raise ImageError("not_found", "no such key")
        if len(value) > most:
            raise ImageError("too_large", f"{len(value)} bytes, over {most}")
        return bytes(value)

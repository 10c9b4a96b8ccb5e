"""Reads MNIST and datasets of the same format (Fashion-MNIST, KMNIST): IDX files, also gzipped."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Collection, Generator, Iterable
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from pipeline.errors import Failure
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import STAGE, ImportOptions, Items, broken_metadata, make_item
from pipeline.importers.members import Budget, Member, unpack
from pipeline.importers.raw_pixels import read_png
from pipeline.importers.tree import Tree, base_name
from pipeline.units import count_of
from pipeline.web.failures import failure

_IMAGES = re.compile(r"(?P<split>.*?)-?images?[-.]idx3-ubyte(\.gz)?", re.IGNORECASE)
_MAGIC_IMAGES, _MAGIC_LABELS = b"\0\0\x08\x03", b"\0\0\x08\x01"
_SPLITS = {"t10k": "test"}


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    names = _image_files(tree)
    return f"MNIST (idx): {', '.join(base_name(name) for name in names)}" if names else ""


def _image_files(tree: Tree) -> list[str]:
    """Return the files of images; of several copies, only the unpacked one. Datasets with the same
    file names, in different folders, are not copies."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(tree.files, key=lambda name: (name.endswith(".gz"), name)):
        base = base_name(name).lower()
        if _IMAGES.fullmatch(base):
            same = found.setdefault(base.removesuffix(".gz").replace(".", "-"), {})
            same.setdefault(_folder(name), name)
    return sorted(name for same in found.values() for name in _without_copies(tree, same.values()))


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _without_copies(tree: Tree, names: Collection[str]) -> Iterable[str]:
    """Return the first of the files with the same bytes, as in Kaggle's copy of MNIST."""
    if len(names) < 2:
        return names
    contents: dict[str, str] = {}
    for name in names:
        content = name
        with suppress(ImageError, OSError), tree.open(name) as file:
            content = hashlib.sha256(file.read()).hexdigest()
        contents.setdefault(content, name)
    return contents.values()


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images of all files; their labels are the class numbers."""
    for name in _image_files(tree):
        match = _IMAGES.fullmatch(base_name(name))
        assert match is not None
        split = match["split"].lower()
        split = split.rpartition("-")[2]
        if not options.has_split(_SPLITS.get(split, split)):
            continue
        try:
            yield from _images(tree, name)
        except ImageError as error:
            yield failure(STAGE, tree.files[name].url, error.kind, detail=error.detail)
        except OSError as error:
            detail = error.strerror or str(error)
            yield failure(STAGE, tree.files[name].url, "unreachable", detail=detail)


def _images(tree: Tree, name: str) -> Items:
    file = tree.keep_open(name)
    count, height, width = _header(file, _MAGIC_IMAGES, 3)
    labels = yield from _labels(tree, name, count)
    url, size = tree.files[name].url, height * width
    there = (_end(file) - 16) // size if size else 0
    if there < count:
        detail = f"has {count_of(there, 'image')}, {count:,} by its header"
        yield failure(STAGE, url, "truncated", detail=detail)
    for number in range(min(count, there)):
        read_image = partial(read_png, file, 16 + number * size, (height, width))
        label = (str(labels[number]),) if labels else ()
        yield make_item(f"{url}#{number}", read_image, label, f"{base_name(name)} {number}", {})


def _labels(tree: Tree, name: str, count: int) -> Generator[Failure, None, bytes]:
    """Return the class numbers of a file's images; empty after yielding a failure."""
    base = base_name(name).removesuffix(".gz")
    wanted = re.sub("images?", "labels", base).replace("idx3", "idx1")
    url = tree.files[name].url
    try:
        found = _labels_file(tree, name, wanted)
    except ValueError as error:
        yield broken_metadata(url, str(error))
        return b""
    if found is None:
        yield failure(STAGE, url, "not_found", detail=f"no file of labels, {wanted}")
        return b""
    where, member = found
    try:
        with _open(where, member) as file:
            (named,) = _header(file, _MAGIC_LABELS, 1)
            labels = file.read(count + 1)
    except ImageError as error:
        yield failure(STAGE, member.url, error.kind, detail=error.detail)
        return b""
    if len(labels) < named or named != count:
        read = count_of(len(labels), "label")
        detail = f"{read}, {named:,} by its header, for {count_of(count, 'image')}"
        yield failure(STAGE, member.url, "damaged", detail=detail)
        return b""
    return labels


def _labels_file(tree: Tree, name: str, wanted: str) -> tuple[str, Member] | None:
    """Return the labels of a file of images: in its folder, or else the only ones of this name.

    Raises:
        ValueError: there are several.
    """
    bases = [wanted.casefold(), f"{wanted}.gz".casefold()]
    named = [one for one in tree.files if base_name(one).casefold() in bases]
    beside = [one for one in named if _folder(one) == _folder(name)]
    if not beside and len({_folder(one) for one in named}) > 1:
        raise ValueError(f"several files of labels, {wanted}; put one beside the images")
    if not named:
        return tree.beside(wanted, f"{wanted}.gz")
    first = min(beside or named, key=lambda one: bases.index(base_name(one).casefold()))
    return first, tree.files[first]


def _open(name: str, member: Member) -> IO[bytes]:
    return unpack(member, PurePosixPath(name).suffix.lower(), Budget(member.size))


def _header(file: IO[bytes], magic: bytes, count: int) -> tuple[int, ...]:
    """Return the dimensions in a file's header.

    Raises:
        ImageError: it is not an IDX file of bytes with this number of dimensions.
    """
    header = file.read(4 + 4 * count)
    if header[:4] != magic or len(header) < 4 + 4 * count:
        raise ImageError("damaged", "not an IDX file of bytes")
    return struct.unpack(f">{count}I", header[4:])


def _end(file: IO[bytes]) -> int:
    return file.seek(0, 2)

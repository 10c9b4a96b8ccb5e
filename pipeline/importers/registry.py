"""The formats that can be imported; `FORMATS` is the registry."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.contract import UserError
from pipeline.importers import (
    celeba,
    cifar,
    coco,
    image_folder,
    img2dataset,
    lmdb_folder,
    mnist,
    nvlabs,
    parquet,
    tfrecord,
    voc,
    webdataset,
)
from pipeline.importers.items import ImportOptions, Items
from pipeline.importers.tree import Tree, open_tree


class ImportFormat(Protocol):
    """A module that reads a format. `detect` returns what was found in one line, or an empty text;
    `read` yields images and failures in a fixed order."""

    def detect(self, tree: Tree, /) -> str: ...
    def read(self, tree: Tree, options: ImportOptions, /) -> Items: ...


FORMATS: dict[str, ImportFormat] = {
    "shards": webdataset,
    "nvlabs": nvlabs,
    "mnist": mnist,
    "cifar": cifar,
    "lmdb": lmdb_folder,
    "tfrecord": tfrecord,
    "celeba": celeba,
    "coco": coco,
    "voc": voc,
    "img2dataset": img2dataset,
    "parquet": parquet,
    "imagefolder": image_folder,
}
"""Modules by format, in the order in which formats are detected."""


_OPTIONS = {
    "label": ("shards", "tfrecord", "celeba", "img2dataset", "parquet", "imagefolder"),
    "split": ("mnist", "cifar", "celeba", "coco", "parquet", "imagefolder"),
}
"""The formats that have each option."""


@dataclass(frozen=True)
class Import:
    """A dataset to import: its files, its format, and what was found, as one line."""

    tree: Tree
    format: str
    found: str

    def check(self, options: ImportOptions) -> None:
        """Check that the format has the options.

        Raises:
            UserError: it does not have one.
        """
        for name, formats in _OPTIONS.items():
            if getattr(options, name) and self.format not in formats:
                raise UserError(
                    f"--{name}: not an option of the format {self.format}; {', '.join(formats)} "
                    "have it"
                )

    def items(self, options: ImportOptions) -> Items:
        yield from self.tree.problems
        yield from FORMATS[self.format].read(self.tree, options)


def open_import(path: Path, form: str = "") -> Import:
    """Open the dataset at `path` in one of the `FORMATS`; detect the format if it is empty.

    Raises:
        UserError: the path does not exist, is a damaged archive, or has an unknown format.
    """
    if form and form not in FORMATS:
        raise UserError(f"import: unknown format {form!r}; choose from {', '.join(FORMATS)}")
    tree = open_tree(path, form != "shards" if form else None)
    with ExitStack() as stack:
        stack.callback(tree.close)
        found = _detect(tree, form)
        stack.pop_all()
    return found


def _detect(tree: Tree, form: str) -> Import:
    names = [form] if form else list(FORMATS)
    for name in names:
        if found := FORMATS[name].detect(tree):
            return Import(tree, name, found)
    if form:
        return Import(tree, form, f"read as {form}")
    why = f" ({tree.problems[0].url}: {tree.problems[0].detail})" if tree.problems else ""
    raise UserError(
        f"{tree.path}: no images in it{why}; --format NAME reads it as one of {', '.join(FORMATS)}"
    )

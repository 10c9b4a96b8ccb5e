"""Reads CelebA: the aligned images, and labels from its lists of attributes and identities."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath

from pipeline.contract import UserError
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    ImportOptions,
    Items,
    as_text,
    broken_metadata,
    make_item,
)
from pipeline.importers.members import Budget, Member, unpack
from pipeline.importers.tree import Tree, base_name
from pipeline.outside_text import open_text
from pipeline.units import count_of

_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_IDENTITIES = ("identity_CelebA.txt", "identity_CelebA.csv")
_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
_SPLITS = {"0": "train", "1": "val", "2": "test"}
Rows = Iterator[tuple[str, list[str]]]
"""The name of an image and its values; the first row has the names of the values, and no image."""


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    is_celeba = tree.find(*_ATTRIBUTES) or "celeba" in tree.path.stem.lower()
    if not is_celeba or not next(tree.images, None):
        return ""
    lists = [found[0] for names in (_ATTRIBUTES, _IDENTITIES, _PARTITIONS)
             if (found := tree.beside(*names))]  # fmt: skip
    if not lists:
        return ""
    count = sum(1 for _ in tree.images)
    return f"CelebA: {count_of(count, 'image')}, {', '.join(base_name(one) for one in lists)}"


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images. Their labels are the attributes they have; with `attr:NAME`, NAME or
    `not NAME`; with `identity`, the number of the person."""
    labels: dict[str, tuple[str, ...]] = {}
    splits: dict[str, tuple[str, ...]] = {}
    files, convert = _list_of(options.label)
    if options.label or tree.beside(*files):
        yield from _read_list(tree, files, convert, labels)
    if options.split:
        yield from _read_list(tree, _PARTITIONS, _split_of, splits)
    for name in tree.images:
        base = base_name(name)
        stem = PurePosixPath(base).stem
        if not options.split or options.has_split("".join(splits.get(stem, ()))):
            yield make_item(tree.files[name].url, partial(tree.read, name), labels.get(stem, ()),
                            as_text(base), {})  # fmt: skip


Convert = Callable[[list[str], list[str]], tuple[str, ...]]
"""The names of the values and the values of an image → its labels."""


def _list_of(label: str) -> tuple[tuple[str, ...], Convert]:
    """Return the file and the function that give the labels.

    Raises:
        UserError: the label is unknown.
    """
    kind, _, attribute = label.partition(":")
    if label == "identity":
        return _IDENTITIES, lambda _names, values: tuple(values[:1])
    if not label:
        return _ATTRIBUTES, lambda names, values: tuple(
            name for name, value in zip(names, values, strict=True) if value == "1"
        )
    if kind == "attr" and attribute:
        return _ATTRIBUTES, partial(_attribute, attribute)
    raise UserError(f"--label {label}: unknown for CelebA; choose attr:NAME or identity")


def _attribute(attribute: str, names: list[str], values: list[str]) -> tuple[str, ...]:
    if attribute not in names:
        raise UserError(f"--label attr:{attribute}: unknown; choose from {', '.join(names)}")
    return (attribute if values[names.index(attribute)] == "1" else f"not {attribute}",)


def _split_of(_names: list[str], values: list[str]) -> tuple[str, ...]:
    return tuple(_SPLITS.get(one, one) for one in values[:1])


def _read_list(
    tree: Tree, files: tuple[str, ...], convert: Convert, found: dict[str, tuple[str, ...]]
) -> Items:
    """Add the labels of a list by the image's name without its extension; yield its failures.

    Raises:
        UserError: the list does not exist.
    """
    place = tree.beside(*files)
    if place is None:
        raise UserError(f"{tree.path}: {files[0]} is missing; put it beside the images")
    name, member = place
    names: list[str] | None = None
    number = 0
    try:
        for number, (image, values) in enumerate(_rows(name, member), start=1):
            if not image:
                names = values
            elif names is None and files is _ATTRIBUTES:
                detail = f"row {number}: no line with the names of the attributes before it"
                yield broken_metadata(f"{member.url}#{number}", detail)
                return
            elif names and len(values) != len(names):
                detail = f"row {number}: {len(values)} values, {len(names)} names"
                yield broken_metadata(f"{member.url}#{number}", detail)
            else:
                found[PurePosixPath(image).stem] = convert(names or [], values)
    except (ImageError, OSError, csv.Error) as error:
        detail = error.detail if isinstance(error, ImageError) else str(error)
        yield broken_metadata(member.url, f"row {number + 1}: {detail}")


def _rows(name: str, member: Member) -> Rows:
    """Yield the rows of a list, as published (text in columns) or as CSV, as on Kaggle."""
    suffix = PurePosixPath(name).suffix
    with open_text(unpack(member, suffix, Budget(member.size))) as lines:
        if suffix == ".csv":
            for number, row in enumerate(csv.reader(lines)):
                if row:
                    yield (row[0] if number else ""), row[1:]
            return
        for line in lines:
            first, *rest = line.split() or [""]
            if "." in first:
                yield first, rest
            elif rest:  # the names of the attributes; the line before has the number of images
                yield "", [first, *rest]

"""Reads datasets of StyleGAN and EDM: images in folders or a zip, and their labels in
dataset.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from pipeline.contract import UserError
from pipeline.errors import Failure
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    ImportOptions,
    Items,
    as_text,
    broken_metadata,
    label_of_number,
    make_item,
)
from pipeline.importers.tree import Tree
from pipeline.outside_text import decode_text

NAME = "dataset.json"
_MAX_METADATA = 256 << 20


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    return "images with dataset.json (StyleGAN)" if NAME in tree.files else ""


def read(tree: Tree, _options: ImportOptions) -> Items:
    """Yield the images. Labels are class numbers (names if there are `label_names`), one-hot
    lists, or `null` for a dataset without labels."""
    values = _dataset_json(tree) if NAME in tree.files else {}
    labels = dict[str, tuple[str, ...]]()
    yield from _labels(tree, values, labels)
    for name in tree.images:
        label = labels.pop(name, ())
        yield make_item(
            tree.files[name].url, partial(tree.read, name), label, as_text(name), {}
        )  # fmt: skip
    for name in labels:
        yield _broken(tree, f"no such image: {name}", name)


def _dataset_json(tree: Tree) -> dict[str, Any]:
    """Return the content of `dataset.json`.

    Raises:
        UserError: it cannot be read; without it all images would lose their labels.
    """
    where = f"{tree.path}: {NAME}"
    try:
        values = json.loads(decode_text(tree.read(NAME, _MAX_METADATA), "strict"))
    except (ValueError, RecursionError, ImageError, OSError) as error:
        raise UserError(f"{where}: not JSON ({error}); correct it or remove it") from None
    labels = values.get("labels") if isinstance(values, dict) else 0
    if labels is not None and not isinstance(labels, list | dict):
        raise UserError(f"{where}: labels: not a list of names and labels; correct it or remove it")
    assert isinstance(values, dict)
    return values


def _labels(
    tree: Tree, values: dict[str, Any], found: dict[str, tuple[str, ...]]
) -> Iterator[Failure]:
    """Add the labels by the name of the image; yield the failures of entries."""
    known = values.get("label_names") or []
    known = known if isinstance(known, list) else []
    labels = values.get("labels") or []
    entries = list(labels.items()) if isinstance(labels, dict) else labels
    for place, entry in enumerate(entries):
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)):
            yield _broken(tree, f"labels.{place}: not a name and a label", str(place))
            continue
        try:
            name = entry[0].replace("\\", "/").removeprefix("./")
            found[name] = _label(entry[1], known)
        except ValueError as error:
            yield _broken(tree, f"labels.{place}: {error}", str(place))


def _label(value: object, names: list[Any]) -> tuple[str, ...]:
    """Return the labels of a class number, a one-hot or multi-hot list, a name or null.

    Raises:
        ValueError: it is a list of other values, which are not classes.
    """
    if not isinstance(value, list):
        return label_of_number(value, names)
    if not all(one in (0, 1) for one in value):
        raise ValueError(f"not a class number and not a one-hot list: {value!r:.60}")
    return tuple(
        label for number, one in enumerate(value) if one for label in label_of_number(number, names)
    )


def _broken(tree: Tree, detail: str, fragment: str) -> Failure:
    return broken_metadata(f"{tree.files[NAME].url}#{fragment}", detail)

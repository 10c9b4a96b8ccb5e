"""Reads the output of img2dataset in its format `files`: images with JSON and text beside them.

Its tars, Parquet and TFRecord files are read like those of other tools.
"""

from __future__ import annotations

import json
from functools import partial

from pipeline.contract import UserError
from pipeline.imaging.limits import ImageError
from pipeline.importers.image_folder import Layout
from pipeline.importers.items import (
    ImportOptions,
    Items,
    as_text,
    broken_metadata,
    labels_in,
    make_item,
)
from pipeline.importers.parquet import image_tables
from pipeline.importers.tree import Tree, base_name
from pipeline.units import count_of

_MAX_TEXT = 1 << 20


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format.

    Raises:
        UserError: the folder has only the metadata of img2dataset, without images.
    """
    stats = [name for name in tree.files if name.endswith("_stats.json")]
    with_json = [name for name in tree.images if _stem(name) + ".json" in tree.files]
    if with_json:
        count = f"{count_of(len(with_json), 'image')} with JSON"
        return f"img2dataset output (files): {count}" if stats else count
    if stats and not tree.samples and not _others(tree):
        raise UserError(
            f"{tree.path}: img2dataset output without images; import-manifest reads the Parquet "
            "files, if there are any, and download fetches the images"
        )
    return ""


def _others(tree: Tree) -> bool:
    """Return True if the files can contain images in another way."""
    if next(tree.images, None) or any(name.lower().endswith(".tfrecord") for name in tree.files):
        return True
    return bool(image_tables(tree))


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images. Their title is the caption; their labels are those in the JSON
    (`labels_in`). If it is another tool's JSON without labels, they are the folders."""
    is_own = any(name.endswith("_stats.json") for name in tree.files) or options.label
    layout = Layout([] if is_own else list(tree.images))
    for name in tree.images:
        url = tree.files[name].url
        beside = _stem(name) + ".json"
        try:
            values = json.loads(tree.read(beside, _MAX_TEXT)) if beside in tree.files else {}
            if not isinstance(values, dict):
                raise TypeError("not a JSON object")
        except (ValueError, TypeError, RecursionError, ImageError, OSError) as error:
            yield broken_metadata(url, f"{beside}: {error}")
            continue
        labels = labels_in(values, options.label) or (() if is_own else layout.labels(name))
        yield make_item(url, partial(tree.read, name), labels, as_text(base_name(name)), values)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]

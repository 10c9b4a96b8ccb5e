"""Reads images with boxes in XML files of Pascal VOC, such as Stanford Dogs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pipeline.contract import Box
from pipeline.imaging.limits import ImageError
from pipeline.importers.image_folder import Layout
from pipeline.importers.items import (
    ImportOptions,
    Items,
    as_text,
    broken_metadata,
    make_item,
    sort_objects,
)
from pipeline.importers.members import Member
from pipeline.importers.path_matches import match_paths
from pipeline.importers.tree import Tree, base_name
from pipeline.sources.xml import children, name_of, read_xml, text_of
from pipeline.units import count_of

_FOLDERS = ("annotation", "annotations")
_BESIDE = ("annotation.tar", "Annotation.zip", "annotations.tar", "annotations.zip")
_MAX_XML = 1 << 20


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    if not next(tree.images, None):
        return ""
    annotations = _annotations(tree)
    if not annotations:
        return ""
    count = sum(1 for name in tree.images)
    beside = count_of(len(annotations), "XML file")
    return f"images with boxes (Pascal VOC): {count_of(count, 'image')}, {beside}"


def _annotations(tree: Tree) -> dict[str, Member]:
    """Return the files of annotations by their paths without extension."""
    found = {_without_extension(name): tree.files[name] for name in tree.files if _is_xml(name)}
    beside = None if found else tree.sibling(*_BESIDE)  # Stanford Dogs: images.tar, annotation.tar
    return _annotations(beside) if beside else found


def _without_extension(name: str) -> str:
    return f"{name.rpartition('/')[0]}/{PurePosixPath(name).stem}"


def _is_xml(name: str) -> bool:
    """Return True for an XML file, or one without extension in a folder of annotations."""
    path = PurePosixPath(name)
    in_folder = any(part.casefold() in _FOLDERS for part in path.parts[:-1])
    return in_folder and path.suffix.casefold() in (".xml", "")


def read(tree: Tree, _options: ImportOptions) -> Items:
    """Yield the images with the boxes and names of their objects, the largest first. An image
    without annotation has the labels of its folders."""
    annotations = _annotations(tree)
    near = match_paths([_without_extension(name) for name in tree.images], annotations)
    layout = Layout(list(tree.images))
    for name in tree.images:
        url, labels = tree.files[name].url, layout.labels(name)
        boxes: tuple[Box, ...] = ()
        found = near.get(_without_extension(name), [])
        if len(found) > 1:
            several = f"several annotations of this name: {', '.join(found[:3])}"
            yield broken_metadata(url, f"{several}; put them into the folders of their images")
            continue
        if found:
            member = annotations[found[0]]
            try:
                boxes, labels = sort_objects(_objects(member.read(_MAX_XML)))
            except (ImageError, OSError, ValueError) as error:
                detail = error.detail if isinstance(error, ImageError) else str(error)
                yield broken_metadata(member.url, f"not an annotation: {detail}")
                continue
        yield make_item(url, partial(tree.read, name), labels, as_text(base_name(name)), {}, boxes)


def _objects(data: bytes) -> Iterator[tuple[str, Box]]:
    """Yield the name and box of each object of an annotation.

    Raises:
        ValueError: it is damaged.
    """
    root, problem = read_xml(data)
    if root is None or problem:
        raise ValueError(problem)
    if name_of(root) != "annotation":
        raise ValueError(f"the root is <{name_of(root)}>, not <annotation>")
    for one in children(root, "object"):
        for box in children(one, "bndbox"):
            yield text_of(one, "name"), _box(box)


def _box(element: Any) -> Box:
    left, top, right, bottom = (
        float(text_of(element, name)) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("a box that is not finite")
    return left, top, right, bottom

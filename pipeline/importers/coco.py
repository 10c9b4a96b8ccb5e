"""Reads images with boxes in the JSON of COCO (`instances_train2017.json` and the like)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import PurePosixPath
from typing import Any

from pipeline.contract import Box
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    STAGE,
    ImportOptions,
    Items,
    as_text,
    box_of_size,
    broken_metadata,
    is_file,
    make_item,
    sort_objects,
)
from pipeline.importers.members import FolderMember, Member
from pipeline.importers.path_matches import match_paths
from pipeline.importers.tree import Tree, base_name
from pipeline.outside_text import open_text
from pipeline.sources.json_stream import json_elements
from pipeline.units import count_of
from pipeline.web.failures import failure

_HEAD = 1 << 16
_NOT_OBJECTS = ("captions_", "person_keypoints_", "image_info_", "stuff_")


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    names = _tables(tree)
    listed = ", ".join(base_name(name) for name in names)
    return f"images with boxes (COCO): {listed}" if names else ""


def _tables(tree: Tree) -> list[str]:
    """Return the files of instances."""
    found = []
    for name in tree.files:
        base = base_name(name).casefold()
        if not base.endswith(".json") or base.startswith(_NOT_OBJECTS):
            continue
        if base.startswith("instances") or base.endswith(".coco.json") or name == tree.single:
            found.append(name)
    return found if len(found) > 1 or (found and _is_coco(tree, found[0])) else []


def _is_coco(tree: Tree, name: str) -> bool:
    with suppress(ImageError, OSError), tree.open(name) as file:
        head = file.read(_HEAD)
        return any(key in head for key in (b'"images"', b'"annotations"', b'"categories"'))
    return False


@dataclass
class _Content:
    """The images of a file, their objects, and the names of the categories, by their ids."""

    images: dict[object, str] = field(default_factory=dict)
    objects: dict[object, list[tuple[object, Box]]] = field(default_factory=dict)
    categories: dict[object, str] = field(default_factory=dict)


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images with the boxes and categories of their objects, the largest first. Crowds
    are skipped."""
    for name in _tables(tree):
        split = _split_folder(name).rstrip("0123456789")
        if base_name(name).startswith("_"):  # Roboflow: train/_annotations.coco.json
            split = PurePosixPath(name).parent.name
        if not options.has_split(split):
            continue
        content = _Content()
        yield from _read_content(tree, name, content)
        near = match_paths([_place(name, one) for one in content.images.values()], tree.files)
        matches = Counter(chain.from_iterable(near.values()))
        bases = Counter(base_name(one) for one in set(content.images.values()))
        for number, file_name in content.images.items():
            names = near.get(_place(name, file_name), [])
            where = f"{tree.files[name].url}#{number}"
            if len(names) > 1 or any(matches[one] > 1 for one in names):
                several = f"several images or entries of this name: {file_name:.200}"
                yield broken_metadata(where, f"{several}; write their paths in file_name")
                continue
            others = bases[base_name(file_name)] - 1
            member = (
                tree.files[names[0]] if names else _beside(tree, name, split, file_name, others)
            )
            if member is None:
                yield failure(STAGE, where, "not_found", detail=f"no image {file_name:.200}")
                continue
            found = content.objects.get(number, [])
            boxes, labels = sort_objects(
                (content.categories.get(one, str(one)), box) for one, box in found
            )
            title = as_text(base_name(file_name))
            yield make_item(member.url, member.read, labels, title, {}, boxes)


def _place(table: str, file_name: str) -> str:
    """Return where the image of a JSON file is likely to be: in a folder `train2017` beside it."""
    return f"{table.rpartition('/')[0]}/{_split_folder(table)}/{_relative(file_name)}"


def _split_folder(table: str) -> str:
    return PurePosixPath(table).stem.removeprefix("instances_")


def _relative(file_name: str) -> str:
    """Return the path of an image without what leads out of its folder."""
    return "/".join(part for part in file_name.split("/") if part not in ("", ".", ".."))


def _beside(tree: Tree, table: str, split: str, file_name: str, others: int) -> Member | None:
    """Return an image of a JSON file that was given alone: in its folder, or in the folder
    `train2017` beside that of the annotations. `others` is the number of entries that have the same
    base name."""
    if not tree.single:
        return None
    folder = tree.path.parent
    names = (_relative(file_name), *([] if others else [base_name(file_name)]))
    parts = (_split_folder(table), split, "images", ".")
    for name, place, part in product(names, (folder, folder.parent), parts):
        if is_file(path := place / part / name):
            return FolderMember(path)
    return None


def _read_content(tree: Tree, name: str, content: _Content) -> Items:
    """Add the content of a file; yield the failures of its entries, and of the file."""
    url = tree.files[name].url
    number = 0
    try:
        with open_text(tree.open(name)) as file:
            for number, (key, entry) in enumerate(json_elements(file), start=1):
                try:
                    _add(content, key, entry)
                except (TypeError, KeyError, ValueError, AttributeError) as error:
                    yield broken_metadata(f"{url}#{key}{number}", f"{key}: {error!r:.200}")
    except (ImageError, OSError, ValueError, RecursionError) as error:
        detail = error.detail if isinstance(error, ImageError) else str(error)
        yield broken_metadata(
            url, f"not JSON of COCO, after {count_of(number, 'entry', 'entries')}: {detail}"
        )


def _add(content: _Content, key: str, entry: Any) -> None:
    if key == "images":
        content.images[entry["id"]] = str(entry["file_name"]).replace("\\", "/")
    elif key == "categories":
        content.categories[entry["id"]] = as_text(entry["name"])
    elif key == "annotations" and not entry.get("iscrowd"):
        box = box_of_size(entry["bbox"])
        if box is None:
            raise ValueError(f"bbox: not four numbers: {entry['bbox']!r:.60}")
        category = entry["category_id"]
        hash(category)  # a list is no id
        content.objects.setdefault(entry["image_id"], []).append((category, box))

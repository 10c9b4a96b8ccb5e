"""Reads WebDataset tars, with or without an index: those of this project, img2dataset and Hugging
Face."""

from __future__ import annotations

import json
import tarfile
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.contract import load_index
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    IMAGE_SUFFIXES,
    STAGE,
    ImportOptions,
    Items,
    as_labels,
    as_text,
    broken_metadata,
    is_file,
    label_of_number,
    labels_in,
    make_item,
)
from pipeline.importers.members import Archive, Budget, SampleTar
from pipeline.importers.tolerant_tar import TarEntry, read_entry, sample_entries
from pipeline.importers.tree import Tree, is_image, is_system_file
from pipeline.units import count_of
from pipeline.web.failures import failure
from pipeline.web.local_files import file_url

_INDEX = "shards.json"
_MAX_SAMPLE_TEXT = 1 << 20
_HEAD = 1 << 16
_SAMPLE_IMAGES = tuple(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    if _index_of(tree):
        return "shards with an index"
    if not tree.samples:
        return ""
    stats = [name for name in tree.files if name.endswith("_stats.json")]
    count = count_of(len(tree.samples), "tar")
    return f"{'img2dataset output (webdataset)' if stats else 'WebDataset'}: {count}"


def _index_of(tree: Tree) -> str:
    """Return the name of the shard index; empty if there is none."""
    if _INDEX in tree.files:
        return _INDEX
    if not tree.single.lower().endswith(".json"):
        return ""
    with tree.open(tree.single) as file:
        head = file.read(_HEAD)
    return "" if b'"annotations"' in head or b'"images"' in head else tree.single


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images of the samples. Their labels are those in the JSON (`labels_in`), or else
    the class in `.cls`, a number or a name; or what `options.label` names: a key of the JSON, or an
    extension such as txt."""
    labels: tuple[str, ...] = ()
    tars = tree.samples
    if _index_of(tree):
        index, locations = load_index(tree.path)
        labels, tars = index.labels, [_shard(Path(one)) for one in locations]
    for tar in tars:
        if tar.file is None and not is_file(tar.archive.path):
            url = file_url(tar.archive.path)
            yield failure(STAGE, url, "not_found", detail="shard does not exist")
            continue
        try:
            with tar.open() as file:
                yield from _samples(tar, file, labels, options)
        except (tarfile.TarError, OSError) as error:
            yield failure(
                STAGE, file_url(tar.archive.path), "damaged",
                detail=f"not a complete tar file ({error})",
            )  # fmt: skip


def _shard(path: Path) -> SampleTar:
    return SampleTar(Archive(path, "", Budget(0)))


def _samples(
    tar: SampleTar, file: IO[bytes], labels: tuple[str, ...], options: ImportOptions
) -> Items:
    seen = set[str]()
    for key, files in sample_entries(file):
        extension = _image_extension(files)
        if not extension or is_system_file(f"{key}.{extension}"):
            continue
        url = tar.archive.url_of(f"{key}.{extension}")
        if key in seen:
            yield broken_metadata(url, f"{key}: occurs twice, or its files are not adjacent")
            continue
        seen.add(key)
        try:
            values = json.loads(_text(file, files, "json") or b"{}")
            if not isinstance(values, dict):
                raise TypeError("not a JSON object")
            title = _text(file, files, "txt").decode(errors="replace").strip()
            named = _labels(file, files, values, labels, options.label)
        except (ValueError, TypeError, RecursionError, tarfile.TarError) as error:
            yield broken_metadata(url, f"{key}: {error}")
            continue
        read_image = partial(_read_member, tar, files[extension])
        yield make_item(url, read_image, named, title or as_text(key), values)


def _image_extension(files: dict[str, TarEntry]) -> str:
    """Return the extension of a sample's image, such as jpg or image.png; empty if it has none."""
    first = next((one for one in _SAMPLE_IMAGES if one in files), "")
    return first or next((one for one in files if is_image(f"x.{one}")), "")


def _labels(
    file: IO[bytes], files: dict[str, TarEntry], values: dict[str, Any], names: tuple[str, ...],
    wanted: str,
) -> tuple[str, ...]:  # fmt: skip
    if wanted:
        if wanted in files:
            return as_labels(_text(file, files, wanted).decode(errors="replace").strip())
        return labels_in(values, wanted)
    named = labels_in(values)
    if named or "cls" not in files:
        return named
    text = _text(file, files, "cls").decode().strip()
    return label_of_number(int(text), names) if text.lstrip("-").isdigit() else as_labels(text)


def _text(file: IO[bytes], files: dict[str, TarEntry], extension: str) -> bytes:
    """Return a small member of a sample; empty if it does not exist."""
    entry = files.get(extension)
    if entry is None:
        return b""
    if entry.size > _MAX_SAMPLE_TEXT:
        raise ValueError(f"{extension}: {entry.size} bytes")
    return read_entry(file, entry)


def _read_member(tar: SampleTar, entry: TarEntry, most: int) -> bytes:
    if entry.wrong:
        raise ImageError("wrong_type", entry.wrong)
    if entry.size > most:
        raise ImageError("too_large", f"{entry.size} bytes, over {most}")
    try:
        with tar.open() as file:
            return read_entry(file, entry)
    except tarfile.TarError as error:
        raise ImageError("damaged", str(error)) from None

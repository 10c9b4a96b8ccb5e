"""Reads images in archives: zips of StyleGAN and EDM, and WebDataset tars. Nothing is extracted to
disk."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pipeline.contract import UserError, load_index
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    IMAGE_SUFFIXES,
    STAGE,
    Items,
    as_labels,
    as_text,
    broken_metadata,
    is_file,
    make_item,
    read_file,
    read_most,
)
from pipeline.importers.tolerant_tar import TarEntry, read_entry, sample_entries
from pipeline.outside_text import decode_text
from pipeline.web.failures import failure
from pipeline.web.local_files import file_url
from pipeline.web.zips import BROKEN_ARCHIVE, open_zip

_MAX_METADATA = 64 << 20
_MAX_SAMPLE_TEXT = 1 << 20
_MAX_RATIO = 100
_FREE_BYTES = 256 << 20
"""All images of a zip may together unpack to `_MAX_RATIO` times its size plus this many bytes;
images hardly compress."""

_SAMPLE_IMAGES = tuple(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


def nvlabs(path: Path) -> Items:
    """Read a zip or folder of images with `dataset.json`; its labels are numbers, or names if it
    has `label_names`."""
    if path.is_dir():
        names = [one.relative_to(path).as_posix() for one in sorted(path.rglob("*"))
                 if is_file(one)]  # fmt: skip
        yield from _nvlabs_items(
            path, names, lambda name, most: read_file(path / name, most), file_url(path) + "/"
        )
        return
    archive = _Zip(path)  # closed with its last reader, because items are read later
    yield from _nvlabs_items(path, sorted(archive.members), archive.read, "")


def _nvlabs_items(
    path: Path, names: list[str], read: Callable[[str, int], bytes], folder: str
) -> Items:
    facts = _dataset_json(path, read) if "dataset.json" in names else {}
    known = facts.get("label_names") or []
    known = known if isinstance(known, list) else []
    numbers: dict[str, Any] = {}
    for place, entry in enumerate(facts.get("labels") or []):
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
            numbers[entry[0]] = entry[1]
        else:
            where = file_url(path / "dataset.json") if folder else file_url(path, "dataset.json")
            detail = f"labels.{place}: not a name and a label"
            yield broken_metadata(f"{where}#{place}", detail)
    for name in names:
        if PurePosixPath(name).suffix.casefold() not in IMAGE_SUFFIXES:
            continue
        url = file_url(path / name) if folder else file_url(path, name)
        yield make_item(url, partial(read, name), _label(numbers.get(name), known),
                        as_text(name), {})  # fmt: skip


def _dataset_json(path: Path, read: Callable[[str, int], bytes]) -> dict[str, Any]:
    """Return the content of `dataset.json`.

    Raises:
        UserError: it cannot be read; without it all images would lose their labels.
    """
    where = f"{path}: dataset.json"
    try:
        facts = json.loads(decode_text(read("dataset.json", _MAX_METADATA), "strict"))
    except (ValueError, RecursionError, ImageError, OSError) as error:
        raise UserError(f"{where}: not JSON ({error}); correct it or remove it") from None
    labels = facts.get("labels") if isinstance(facts, dict) else 0
    if labels is not None and not isinstance(labels, list):
        raise UserError(f"{where}: labels: not a list of names and labels; correct it or remove it")
    return cast(dict[str, Any], facts)


def _label(number: object, names: Iterable[Any]) -> tuple[str, ...]:
    """Return the label of a class number; the number itself if it has no name."""
    known = list(names)
    if isinstance(number, int) and 0 <= number < len(known):
        return (as_text(known[number]),)
    return () if number is None else (as_text(number),)


class _Zip:
    """Reads members of a zip one at a time, with limits on the size of a member and on the total
    unpacked size.

    Raises:
        UserError: the file is not a zip file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MAX_RATIO * path.stat().st_size + _FREE_BYTES
        try:
            self._archive = open_zip(path)
        except (*BROKEN_ARCHIVE, OSError) as error:
            raise UserError(f"{path}: cannot be read as a zip file ({error})") from None
        # If several members have the same name, the last one counts, as in every unzip program.
        self.members = {info.filename: info for info in self._archive.infolist()}

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a member.

        Raises:
            ImageError: it is damaged, too large, encrypted or not a file.
        """
        info = self.members[name]
        if info.flag_bits & 1:
            raise ImageError("damaged", "encrypted")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ImageError("wrong_type", "a symbolic link")
        if info.file_size > most:
            raise ImageError("too_large", f"unpacks to {info.file_size} bytes, over {most}")
        if info.file_size > self._left:
            raise ImageError(
                "too_large", f"the zip unpacks to more than {_MAX_RATIO} times its size"
            )
        self._left -= info.file_size
        try:
            with self._archive.open(info) as file:
                return read_most(file, most)
        except BROKEN_ARCHIVE as error:
            raise ImageError("damaged", f"{type(error).__name__}: {error}") from None


def find_tars(path: Path) -> list[Path]:
    """Return the tars in a folder, or in its `data` folder, as in Hugging Face datasets."""
    found = sorted(filter(is_file, path.glob("*.tar")))
    return found or sorted(filter(is_file, path.glob("data/*.tar")))


def shards(path: Path) -> Items:
    """Read WebDataset tars, with or without an index."""
    labels: tuple[str, ...] = ()
    if path.suffix == ".tar":
        tars = [path]
    elif path.suffix == ".json" or (path / "shards.json").exists():
        index, locations = load_index(path)
        labels, tars = index.labels, [Path(one) for one in locations]
    else:
        tars = find_tars(path)
    for tar in tars:
        if not is_file(tar):
            yield failure(STAGE, file_url(tar), "not_found", detail="shard does not exist")
            continue
        try:
            yield from _samples(tar, labels)
        except (tarfile.TarError, OSError) as error:
            yield failure(
                STAGE, file_url(tar), "damaged", detail=f"not a complete tar file ({error})"
            )


def _samples(tar: Path, labels: tuple[str, ...]) -> Items:
    with tar.open("rb") as file:
        for key, files in sample_entries(tar):
            extension = next((one for one in _SAMPLE_IMAGES if one in files), None)
            if extension is None:
                continue
            url = file_url(tar, f"{key}.{extension}")
            try:
                facts = json.loads(_text(file, files, "json") or b"{}")
                if not isinstance(facts, dict):
                    raise TypeError("not a JSON object")
                named = as_labels(facts.get("labels"))
                if not named and "cls" in files:
                    named = _label(int(_text(file, files, "cls")), labels)
            except (ValueError, TypeError, RecursionError, tarfile.TarError) as error:
                yield broken_metadata(url, f"{key}: {error}")
                continue
            read = partial(_read_member, tar, files[extension])
            yield make_item(url, read, named, as_text(key), facts)


def _text(file: IO[bytes], files: dict[str, TarEntry], extension: str) -> bytes:
    """Return a small member of a sample; empty if it does not exist."""
    entry = files.get(extension)
    if entry is None:
        return b""
    if entry.size > _MAX_SAMPLE_TEXT:
        raise ValueError(f"{extension}: {entry.size} bytes")
    return read_entry(file, entry)


def _read_member(tar: Path, entry: TarEntry, most: int) -> bytes:
    if entry.wrong:
        raise ImageError("wrong_type", entry.wrong)
    if entry.size > most:
        raise ImageError("too_large", f"{entry.size} bytes, over {most}")
    try:
        with tar.open("rb") as file:
            return read_entry(file, entry)
    except tarfile.TarError as error:
        raise ImageError("damaged", str(error)) from None

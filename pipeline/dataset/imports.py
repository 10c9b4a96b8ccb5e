"""Datasets made by other tools, as originals of ours; `FORMS` is the registry.

Import stands in for crawl and download: it writes manifest rows and complete parts of originals,
from which select and shard go on. What is imported already is not read again.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.contract import (
    Dataset,
    JsonlAppender,
    ManifestRow,
    UserError,
    image_key,
    load_index,
    now_utc,
    read_jsonl,
)
from pipeline.dataset.originals import (
    PART_SIZE,
    PartFiles,
    is_complete,
    next_part,
    planned_parts,
    write_plan,
)
from pipeline.dataset.part_writer import PartWriter
from pipeline.dataset.tars import read_samples
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.images import EXTENSIONS, facts_of, open_picture
from pipeline.pictures.limits import ImageError
from pipeline.web.local_files import file_url

_MAX_PIXELS = 200_000_000
_IMAGES = frozenset(f".{ending}" for ending in EXTENSIONS.values()) | {".jpeg", ".tiff"}
_SAMPLE_IMAGES = ("png", "webp", "jpg", "jpeg")


@dataclass(frozen=True)
class Item:
    """An image of the foreign dataset: where it is, what is known of it, and how to read it."""

    url: str
    read: Callable[[], bytes]
    labels: tuple[str, ...] = ()
    title: str = ""
    license: str = ""
    attribution: str = ""

    @property
    def row(self) -> ManifestRow:
        return ManifestRow(
            image_key(self.url), self.url, "", self.title, self.labels, self.license,
            self.attribution, now_utc(),
        )  # fmt: skip


@dataclass(frozen=True)
class ImportResult:
    """How many images were imported, were there already, and could not be decoded."""

    images: int
    known: int
    failed: int


def import_dataset(path: Path, dataset: Dataset, log: EventLog, form: str = "") -> ImportResult:
    """Import the images at `path`. Killed at any moment, run it again.

    Args:
        path: a folder, a zip, or an index of shards.
        form: one of `FORMS`; found out where it is empty.

    Raises:
        UserError: there is nothing, or it has no such form.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    form = form or guess_form(path)
    if form not in FORMS:
        raise UserError(f"import: no form {form!r}; there are: {', '.join(FORMS)}")
    counts = {"images": 0, "known": 0, "failed": 0}
    unfinished = [part for part in planned_parts(dataset) if not is_complete(dataset, part)]
    for part in unfinished:
        wanted = {row.key for row in PartFiles(dataset, part).rows()}
        items = (item for item in FORMS[form](path) if item.row.key in wanted)
        _fill(dataset, part, items, counts, log)
    known = {row.key for part in planned_parts(dataset) for row in PartFiles(dataset, part).rows()}
    listed = {line["key"] for line in read_jsonl(dataset.urls)}
    fresh = _unknown(FORMS[form](path), known, counts)
    while batch := list(islice(fresh, PART_SIZE)):
        rows = [item.row.to_json() for item in batch]
        with JsonlAppender(dataset.urls) as urls:
            urls.append(*(row for row in rows if row["key"] not in listed))
        part = next_part(dataset)
        write_plan(dataset, part, rows)
        _fill(dataset, part, iter(batch), counts, log)
    if not counts["images"] and not counts["known"]:
        raise UserError(f"{path}: no images in it (read as {form})")
    return ImportResult(**counts)


def _unknown(items: Iterator[Item], known: set[str], counts: dict[str, int]) -> Iterator[Item]:
    for item in items:
        key = image_key(item.url)
        if key in known:
            counts["known"] += 1
        else:
            known.add(key)
            yield item


def _fill(
    dataset: Dataset, part: str, items: Iterator[Item], counts: dict[str, int], log: EventLog
) -> None:
    with closing(PartWriter(dataset, part)) as writer:
        for item in items:
            if item.row.key not in writer.done:
                failed = _add(writer, item, log)
                counts["failed" if failed else "images"] += 1
                log.progress("import", sum(counts.values()), None, "images")
        writer.finish()


def _add(writer: PartWriter, item: Item, log: EventLog) -> bool:
    """Add an image to its part; returns whether it failed."""
    row = item.row
    data = item.read()
    try:
        facts = facts_of(open_picture(data, max_pixels=_MAX_PIXELS))
    except ImageError as error:
        failure = Failure(
            "import", row.url, error.kind, retryable=False, key=row.key, detail=error.detail
        )
        writer.fail(row.key, failure)
        log.fail(failure)
        return True
    known = {name: value for name, value in vars(facts).items() if name != "notes"}
    writer.add(row, EXTENSIONS[facts.format], data, known, {"imported": True})
    return False


def guess_form(path: Path) -> str:
    """The form of what is at `path`."""
    if path.suffix == ".json" or (path.is_dir() and (path / "shards.json").exists()):
        return "shards"
    if path.is_dir() and _tars(path):
        return "shards"
    if path.suffix == ".zip" or (path.is_dir() and (path / "dataset.json").exists()):
        return "nvlabs"
    return "imagefolder"


def _image_folder(path: Path) -> Iterator[Item]:
    """Images in folders, whose names are their labels; metadata.jsonl or metadata.csv beside
    them, as Hugging Face `datasets` takes it, wins: what it does not list is left out."""
    if not path.is_dir():
        raise UserError(f"{path}: not a folder")
    metadata = _metadata(path)
    for file in sorted(path.rglob("*")):
        if file.suffix.casefold() not in _IMAGES or not file.is_file():
            continue
        facts = metadata.get(file)
        if metadata and facts is None:
            continue  # a picture on the dataset's card, say
        labels = file.parent.relative_to(path).parts
        if facts is not None:
            labels = (str(facts["label"]),) if facts.get("label") is not None else ()
        yield _item(file_url(file), file.read_bytes, labels, file.name, facts or {})


def _metadata(path: Path) -> dict[Path, dict[str, Any]]:
    """What the metadata files in a folder say, by image."""
    found: dict[Path, dict[str, Any]] = {}
    for file in sorted(path.rglob("metadata.*")):
        if file.suffix == ".jsonl":
            rows: Iterator[dict[str, Any]] = read_jsonl(file)
        elif file.suffix == ".csv":
            text = file.read_text(encoding="utf-8")
            rows = (dict(row) for row in csv.DictReader(io.StringIO(text)))
        else:
            continue
        found.update((file.parent / row["file_name"], row) for row in rows if "file_name" in row)
    return found


def _nvlabs(path: Path) -> Iterator[Item]:
    """A zip or folder of images with `dataset.json`; its labels are numbers, or names where it
    holds `label_names`."""
    if path.is_dir():
        names = [one.relative_to(path).as_posix() for one in sorted(path.rglob("*"))]
        yield from _nvlabs_items(path, names, lambda name: (path / name).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)  # closed with its last reader: items are read later
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a zip ({error})") from None
    yield from _nvlabs_items(path, sorted(archive.namelist()), archive.read)


def _nvlabs_items(path: Path, names: list[str], read: Callable[[str], bytes]) -> Iterator[Item]:
    facts = json.loads(read("dataset.json")) if "dataset.json" in names else {}
    numbers = dict(facts.get("labels") or [])
    known = facts.get("label_names") or []
    for name in names:
        if PurePosixPath(name).suffix.casefold() not in _IMAGES:
            continue
        number = numbers.get(name)
        labels = () if number is None else (known[number] if known else str(number),)
        url = file_url(path / name) if path.is_dir() else file_url(path, name)
        yield _item(url, partial(read, name), labels, name, {})


def _tars(path: Path) -> list[Path]:
    """The tars in a folder, or in its `data` folder, as Hugging Face has them."""
    return sorted(path.glob("*.tar")) or sorted(path.glob("data/*.tar"))


def _shards(path: Path) -> Iterator[Item]:
    """WebDataset tars, with an index or without."""
    labels: tuple[str, ...] = ()
    if path.suffix == ".tar":
        tars = [path]
    elif path.suffix == ".json" or (path / "shards.json").exists():
        index, locations = load_index(path)
        labels, tars = index.labels, [Path(one) for one in locations]
    else:
        tars = _tars(path)
    for tar in tars:
        for key, files in read_samples(tar):
            ending = next((one for one in _SAMPLE_IMAGES if one in files), None)
            if ending is None:
                continue
            facts = json.loads(files.get("json", b"{}"))
            named = tuple(facts.get("labels") or ())
            if not named and "cls" in files:
                number = int(files["cls"])
                named = (labels[number] if number < len(labels) else str(number),)
            url = file_url(tar, f"{key}.{ending}")
            yield _item(url, partial(bytes, files[ending]), named, key, facts)


def _item(
    place: str, read: Callable[[], bytes], labels: tuple[str, ...], title: str,
    facts: dict[str, Any],
) -> Item:  # fmt: skip
    """An image under the URL that its metadata names, else under its place on this machine."""
    return Item(
        str(facts.get("url") or place), read, labels, str(facts.get("title") or title),
        str(facts.get("license") or ""), str(facts.get("attribution") or ""),
    )  # fmt: skip


FORMS: dict[str, Callable[[Path], Iterator[Item]]] = {
    "imagefolder": _image_folder,
    "nvlabs": _nvlabs,
    "shards": _shards,
}
"""By name: what reads a dataset in that form, always in the same order."""

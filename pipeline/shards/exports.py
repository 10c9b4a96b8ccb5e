"""Exports datasets in the formats of other tools; `FORMATS` is the registry.

All samples are read from the shards in the index, whose sha256 is checked first.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.contract import DatasetPaths, ShardIndex, UserError, load_index
from pipeline.contract.tar import read_samples
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.hub import front_matter, hub_license
from pipeline.imaging.limits import ImageError
from pipeline.imaging.pixels import as_image
from pipeline.markup import disarm_markdown
from pipeline.shards.card import CARD_IMAGES
from pipeline.shards.samples import decode
from pipeline.shards.stats import DatasetStats, collect_stats

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


Copy = Callable[[Path, Path], object]


@dataclass(frozen=True)
class ExportResult:
    """The path of the export and its number of samples."""

    path: str
    samples: int


def staging_folder(dataset: DatasetPaths) -> Path:
    """Return the folder of an export that is being uploaded; one that remains is of a kill."""
    return dataset.data_dir / "hub"


def known_stats(dataset: DatasetPaths) -> DatasetStats:
    """Return the stats of a dataset; without counts if it has no selection, as a variant."""
    return collect_stats(dataset) if dataset.selection.exists() else DatasetStats()


def forgotten_keys(dataset: DatasetPaths, index: ShardIndex) -> frozenset[str]:
    """Return the keys of the forgotten images of a dataset and, if it is a variant, of its source
    dataset."""
    keys = read_forgotten(dataset).keys
    source = index.recipe.get("source", dataset.name)
    if isinstance(source, str) and source != dataset.name:
        keys |= read_forgotten(DatasetPaths(source, dataset.root)).keys
    return keys


@dataclass(frozen=True)
class _Sample:
    key: str
    image: bytes
    metadata: dict[str, object]
    number: int | None


def export(
    dataset: DatasetPaths, form: str, out: Path, log: EventLog, copy: Copy = shutil.copyfile
) -> ExportResult:
    """Write the dataset to `out` (a folder, or a file for `nvlabs`) in one of the `FORMATS`.

    `out` appears only when the export is complete. `copy` copies a shard, in the format that
    contains the shards.

    Raises:
        UserError: the format is unknown, `out` exists, there is no index, or a shard is damaged.
    """
    if form not in FORMATS:
        raise UserError(f"export: unknown format {form!r}; choose from {', '.join(FORMATS)}")
    if out.exists():
        raise UserError(f"{out}: exists already; remove it or choose another path")
    index, locations = load_index(dataset.manifest_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.tmp")
    _remove(unfinished)
    paths = [Path(one) for one in locations]
    try:
        if form == "huggingface-webdataset":
            written = _huggingface_shards(dataset, index, paths, unfinished, log, copy)
        else:
            written = FORMATS[form](dataset, index, paths, unfinished, log)
        unfinished.replace(out)
    except BaseException:
        _remove(unfinished)
        raise
    return ExportResult(str(out), written)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _samples(
    dataset: DatasetPaths, index: ShardIndex, paths: list[Path], log: EventLog
) -> Iterator[_Sample]:
    """Yield the samples of all shards, except those of forgotten images that are still in them."""
    done = 0
    forgotten = forgotten_keys(dataset, index)
    for path, entry in zip(paths, index.shardlist, strict=True):
        _check_sha256(path, entry.sha256)
        for key, files in _read_shard(path):
            if _image_of(key) in forgotten:
                continue
            yield _sample(path, key, files, index)
        done += entry.nsamples
        log.progress("export", done, index.nsamples, "images")


def _read_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a shard.

    Raises:
        UserError: it is not a complete tar.
    """
    try:
        yield from read_samples(path)
    except tarfile.TarError as error:
        raise UserError(f"{path}: not a complete tar ({error}); run verify --repair") from None


def _sample(path: Path, key: str, files: dict[str, bytes], index: ShardIndex) -> _Sample:
    try:
        number = int(files["cls"]) if index.labels else None
        metadata = json.loads(files["json"])
        image = files[index.format]
        good = number is None or 0 <= number < len(index.labels)
    except (ValueError, KeyError, RecursionError):
        good = False
    if not good or not isinstance(metadata, dict):
        raise UserError(f"{path}: {key}: not a sample as in the index; run verify --repair")
    return _Sample(key, image, metadata, number)


def _check_sha256(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run verify --repair") from None
    if found != sha256:
        raise UserError(f"{path}: damaged: its sha256 is not the index's; run verify --repair")


def _image_of(key: str) -> str:
    """Return the image key of a sample whose key is KEY, or KEY_0, KEY_1, … if an image has several
    samples."""
    return key.partition("_")[0]


def _folder_names(labels: Sequence[str]) -> list[str]:
    """Convert labels to folder names. If some would be equal, also where capitals do not count, all
    begin with their number."""
    names = [label.replace("/", "_").replace("\0", "_").strip(". ") or "_" for label in labels]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f"{number} {name}" for number, name in enumerate(names)]


def _image_folder(
    dataset: DatasetPaths, index: ShardIndex, paths: list[Path], out: Path, log: EventLog
) -> int:
    """Write one folder per class (`images` without classes), for torchvision's ImageFolder."""
    count, names = 0, _folder_names(index.labels)
    for sample in _samples(dataset, index, paths, log):
        folder = out / ("images" if sample.number is None else names[sample.number])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample.key}.{index.format}").write_bytes(sample.image)
        count += 1
    return count


def _nvlabs(
    dataset: DatasetPaths, index: ShardIndex, paths: list[Path], out: Path, log: EventLog
) -> int:
    """Write an uncompressed zip of PNGs with `dataset.json`, for the loaders of StyleGAN and
    EDM."""
    labels: list[list[object]] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for count, sample in enumerate(_samples(dataset, index, paths, log)):
            name = f"{count // 1000:05d}/img{count:08d}.png"
            try:
                image = _as_png(sample.image, index)
            except ImageError as error:
                raise UserError(f"{sample.key}: {error}; run verify --repair") from None
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), image)
            labels.append([name, sample.number])
        known = labels if index.labels else None
        labels_json = {"labels": known, "label_names": list(index.labels)}
        archive.writestr(zipfile.ZipInfo("dataset.json", _ZIP_TIME), json.dumps(labels_json))
    return len(labels)


def _as_png(data: bytes, index: ShardIndex) -> bytes:
    if index.format == "png":
        return data
    file = io.BytesIO()
    as_image(decode(data, index.channels, index.resolution)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _huggingface(
    dataset: DatasetPaths, index: ShardIndex, paths: list[Path], out: Path, log: EventLog
) -> int:
    """Write files, metadata.jsonl and a dataset card, for imagefolder of Hugging Face
    `datasets`."""
    folder = out / "data" / "train"
    folder.mkdir(parents=True)
    count = 0
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
        for sample in _samples(dataset, index, paths, log):
            name = f"{sample.key}.{index.format}"
            (folder / name).write_bytes(sample.image)
            origin = {name: sample.metadata.get(name) for name in ("url", "license", "attribution")}
            label = {} if sample.number is None else {"label": index.labels[sample.number]}
            line = {"file_name": name, **label, **origin}
            metadata.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    _write_card(dataset, index, out, "data/train/**", count)
    return count


def _huggingface_shards(
    dataset: DatasetPaths, index: ShardIndex, paths: list[Path], out: Path, log: EventLog,
    copy: Copy = shutil.copyfile,
) -> int:  # fmt: skip
    """Copy the shards and write a dataset card, for webdataset of Hugging Face `datasets`."""
    (out / "data").mkdir(parents=True)
    done = 0
    forgotten = forgotten_keys(dataset, index)
    for number, (path, entry) in enumerate(zip(paths, index.shardlist, strict=True)):
        _check_sha256(path, entry.sha256)
        if forgotten and any(_image_of(key) in forgotten for key, _ in _read_shard(path)):
            raise UserError(f"{path}: still contains forgotten images; run forget again")
        copy(path, out / "data" / f"train-{number:05d}-of-{len(paths):05d}.tar")
        done += entry.nsamples
        log.progress("export", done, index.nsamples, "images")
    _write_card(dataset, index, out, "data/*.tar", done)
    return done


def _write_card(
    dataset: DatasetPaths, index: ShardIndex, out: Path, files: str, count: int
) -> None:
    sizes = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6))
    size = next((name for name, most in sizes if count < most), "1M<n<10M")
    head = {
        "pretty_name": index.recipe.get("title") or index.name,
        **hub_license(known_stats(dataset).licenses),
        "task_categories": ["unconditional-image-generation"],
        "tags": ["image", "shellgan"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    }
    text = _card_text(dataset) or f"# {index.name}\n"
    (out / "README.md").write_text(front_matter(head) + text, encoding="utf-8")
    for name in CARD_IMAGES:
        if (dataset.manifest_dir / name).exists():
            shutil.copyfile(dataset.manifest_dir / name, out / name)


def _card_text(dataset: DatasetPaths) -> str:
    """Return the dataset's card, "" if there is none; only its own images are displayed."""
    try:
        text = disarm_markdown(dataset.card.read_bytes().decode("utf-8", "replace"))
    except FileNotFoundError:
        return ""
    return re.sub(r"\\!\\\[([a-z ]+)\\\]\((contact\.jpg|mean\.png)\)", r"![\1](\2)", text)


Exporter = Callable[[DatasetPaths, ShardIndex, list[Path], Path, EventLog], int]

FORMATS: dict[str, Exporter] = {
    "imagefolder": _image_folder,
    "nvlabs": _nvlabs,
    "huggingface": _huggingface,
    "huggingface-webdataset": _huggingface_shards,
}
"""Functions by format; each writes a dataset and returns the number of samples written."""

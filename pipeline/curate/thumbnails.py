"""Thumbnails of all originals in a few files, made once.

A part has two files in `data/NAME/curate/`: `PART.jpgs`, its thumbnails one after the other, and
`PART.npz`, written last: `keys` and `digests` (n,) of the originals, the `ends` (n,) of their
thumbnails and their `colors` (n, 48), the mean RGB values of 4 × 4 fields. They take about 5 kB
per image, and can be deleted at any time. An original that cannot be decoded has no thumbnail.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.atomic_io import FileLock, lock, remove_temp_files
from pipeline.contract import DatasetPaths, OriginalRecord, UserError, atomic_file
from pipeline.cores import cpu_count
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.originals.part_tars import DamagedOriginal, parts_without_tar, read_originals
from pipeline.originals.parts import is_complete, planned_parts, read_part
from pipeline.web.failures import caught_failure
from pipeline.workers import run_unordered

STAGE = "curate"
THUMBNAIL_SIDE = 160
"""The long side of a thumbnail in pixels."""
_QUALITY = 80
COLOR_VALUES = 48


@dataclass(frozen=True)
class PartThumbnails:
    """The thumbnails of n images in the file `path`: image i has the bytes from `begins[i]` to
    `ends[i]`, none if its original cannot be decoded."""

    path: Path
    keys: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    ends: NDArray[np.int64]
    colors: NDArray[np.uint8]

    @property
    def begins(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]


def thumbnails_dir(dataset: DatasetPaths) -> Path:
    return dataset.data_dir / "curate"


def lock_thumbnails(dataset: DatasetPaths) -> FileLock:
    """Lock the thumbnails while a page shows them.

    Raises:
        UserError: another page shows them.
    """
    thumbnails_dir(dataset).mkdir(parents=True, exist_ok=True)
    return lock(
        thumbnails_dir(dataset) / "lock",
        lambda holder: UserError(
            f"{dataset.manifest_dir}: process {holder} curates this dataset; use its page, or stop "
            "it"
        ),
    )


def _table_path(dataset: DatasetPaths, part: str) -> Path:
    return thumbnails_dir(dataset) / f"{part}.npz"


def thumbnails_path(dataset: DatasetPaths, part: str) -> Path:
    return thumbnails_dir(dataset) / f"{part}.jpgs"


def forget_thumbnails(dataset: DatasetPaths, part: str) -> None:
    """Remove the thumbnails of a part; `make_thumbnails` makes those that are allowed again."""
    _table_path(dataset, part).unlink(missing_ok=True)
    thumbnails_path(dataset, part).unlink(missing_ok=True)


def make_thumbnails(dataset: DatasetPaths, log: EventLog) -> None:
    """Make the thumbnails of the complete parts that are missing or out of date, in one process per
    core. Forgotten images have none.

    A kill loses only the parts in progress. Parts whose originals are gone keep what they have.
    """
    if thumbnails_dir(dataset).is_dir():
        remove_temp_files(thumbnails_dir(dataset))
    gone = parts_without_tar(dataset)
    forgotten = read_forgotten(dataset).keys
    sizes: dict[str, int] = {}
    missing: list[str] = []
    for part in (one for one in planned_parts(dataset) if is_complete(dataset, one)):
        records = _records(dataset, part, forgotten)
        sizes[part] = len(records)
        if part not in gone and not _is_current(dataset, part, records):
            missing.append(part)
    done = sum(sizes.values()) - sum(sizes[part] for part in missing)
    log.progress("thumbnails", done, sum(sizes.values()), "images")
    for part, failures in _make_parts(dataset, missing, forgotten):
        done += sizes[part]
        log.progress("thumbnails", done, sum(sizes.values()), "images")
        for failure in failures:
            log.log_failure(failure)


def _records(dataset: DatasetPaths, part: str, forgotten: Set[str]) -> list[OriginalRecord]:
    return [one for one in read_part(dataset, part) if one.key not in forgotten]


def _make_parts(
    dataset: DatasetPaths, parts: Sequence[str], forgotten: Set[str]
) -> Iterator[tuple[str, list[Failure]]]:
    """Yield each part with its failures when its thumbnails are made, in any order."""
    make = partial(_make_part, dataset)
    return run_unordered(cpu_count(), [(part, partial(make, part, forgotten)) for part in parts])


def _make_part(dataset: DatasetPaths, part: str, forgotten: Set[str]) -> list[Failure]:
    records = _records(dataset, part, forgotten)
    failures: list[Failure] = []
    ends: list[int] = []
    colors = np.zeros((len(records), COLOR_VALUES), np.uint8)
    forget_thumbnails(dataset, part)  # the table must never describe other thumbnails
    with atomic_file(thumbnails_path(dataset, part)) as file:
        originals = read_originals(dataset, records)
        for number, (record, data) in enumerate(zip(records, originals, strict=True)):
            try:
                if not isinstance(data, DamagedOriginal):
                    jpeg, colors[number] = _thumbnail(record, data)
                    file.write(jpeg)
            except ImageError:
                pass  # damaged since its download, or no longer within the limits
            except Exception as error:  # noqa: BLE001 errors of one image are caught here
                name = f"{record.part}/{record.member}"
                failures.append(caught_failure(STAGE, name, error, record.key))
            ends.append(file.tell())
    with atomic_file(_table_path(dataset, part)) as file:
        np.savez(
            file, keys=_numbers(one.key for one in records),
            digests=_numbers(one.sha256[:16] for one in records),
            ends=np.array(ends, np.int64), colors=colors,
        )  # fmt: skip
    return failures


def _numbers(words: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([int(word, 16) for word in words], np.uint64)


def _thumbnail(record: OriginalRecord, data: bytes) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the thumbnail of an original as a JPEG, and its colours.

    Raises:
        ImageError: the original cannot be decoded.
    """
    image = scaled_image(record, data, THUMBNAIL_SIDE)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    fields = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    return file.getvalue(), fields.reshape(COLOR_VALUES)


def scaled_image(record: OriginalRecord, data: bytes, side: int) -> Image.Image:
    """Return an original as an RGB image whose long side is at most `side` pixels.

    Raises:
        ImageError: it cannot be decoded.
    """
    with decoded(data, ImageLimits.of_size(record.width, record.height), side) as opened:
        image = opened.image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _is_current(dataset: DatasetPaths, part: str, records: Sequence[OriginalRecord]) -> bool:
    """Return True if there is a thumbnail, or the note that there is none, of each image."""
    made = load_thumbnails(dataset, part)
    if made is None:
        return False
    known = dict(zip(made.keys.tolist(), made.digests.tolist(), strict=True))
    return all(known.get(int(one.key, 16)) == int(one.sha256[:16], 16) for one in records)


def load_thumbnails(dataset: DatasetPaths, part: str) -> PartThumbnails | None:
    """Return the thumbnails of a part; None if they are not made yet, or are damaged."""
    path = thumbnails_path(dataset, part)
    try:
        with _table_path(dataset, part).open("rb") as file, np.load(file) as saved:
            made = PartThumbnails(
                path, saved["keys"], saved["digests"], saved["ends"], saved["colors"]
            )
        size, count = path.stat().st_size, len(made.keys)
        types = (made.keys.dtype, made.digests.dtype, made.ends.dtype, made.colors.dtype)
        good = [one.name for one in types] == ["uint64", "uint64", "int64", "uint8"]
        good = good and made.colors.shape == (count, COLOR_VALUES)
        good = good and made.digests.shape == made.ends.shape == (count,)
        good = good and bool((np.diff(made.ends, prepend=0) >= 0).all())
        good = good and size == (made.ends[-1] if count else 0)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        good = False
    return made if good else None

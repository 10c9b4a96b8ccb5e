"""Records the features of each original once.

A part's features are in a file beside it, `PART.EXTRACTOR.npz`: `keys` (n,), `features` (n, d) in
half precision, and `journal`, which identifies the part's journal and with it the images they are
of. The extractor is an entry point, so this package needs no neural network.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import DatasetPaths, OriginalRecord, UserError, atomic_file
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.resampling import Pixels
from pipeline.originals.part_tars import DamagedOriginal, parts_without_tar, read_originals
from pipeline.originals.parts import PartFiles, is_complete, planned_parts, read_part
from pipeline.plugins import load_plugin
from pipeline.reading import read_bytes
from pipeline.web.failures import caught_failure

EXTRACTOR_GROUP = "shellgan.features"
"""The entry point group of feature extractors."""
Extractor = Callable[[Sequence[Pixels]], NDArray[np.float32]]
"""(height, width, 3) uint8 images of any sizes → (n, d) features."""
Keys = NDArray[np.uint64]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class ExtractorKind:
    """An entry point group, the recipe key that needs it, the side in pixels below which images are
    not reduced, and the text of the progress."""

    group: str
    key: str
    side: int
    progress: str


FEATURES = ExtractorKind(EXTRACTOR_GROUP, "select.features", side=224, progress="features")

_BATCH = 32
_MAX_PIXELS = 1 << 22
"""Larger images are reduced before they are batched; the extractor uses far fewer pixels."""
_MAX_SAMPLE = 20_000
"""Approximate maximum number of images in `sample_features`, to limit memory."""


def load_extractor(name: str, kind: ExtractorKind = FEATURES) -> Extractor:
    """Return the extractor that an installed package provides under this name.

    Raises:
        UserError: it does not exist, or its dependencies are not installed.
    """
    extractor: Extractor = load_plugin(kind.group, name, kind.key)
    return extractor


def features_path(dataset: DatasetPaths, part: str, name: str) -> Path:
    return dataset.originals_dir / f"{part}.{name}.npz"


def parts_without_features(dataset: DatasetPaths, name: str) -> list[str]:
    """Return the complete parts whose features can be computed, and are not recorded yet or are of
    images that were fetched again since.

    Raises:
        UserError: a file of features is damaged.
    """
    gone = parts_without_tar(dataset)
    return [
        part
        for part in planned_parts(dataset)
        if is_complete(dataset, part) and part not in gone and not _is_current(dataset, part, name)
    ]


def _is_current(dataset: DatasetPaths, part: str, name: str) -> bool:
    """Return True if the features of a part's present images are recorded."""
    path = features_path(dataset, part, name)
    if not path.exists():
        return False
    with _open_features(path) as saved:
        return _recorded_journal(saved) == _journal_digest(dataset, part)


def _journal_digest(dataset: DatasetPaths, part: str) -> str:
    """Return a text that identifies the images of a part. `forget` does not change it."""
    journal = PartFiles(dataset, part).journal
    return hashlib.sha256(read_bytes(journal) if journal.exists() else b"").hexdigest()


def record_features(
    dataset: DatasetPaths,
    name: str,
    log: EventLog,
    kind: ExtractorKind = FEATURES,
    only: Collection[str] | None = None,
) -> None:
    """Compute the features of the complete parts (or of those in `only`) that have none yet, or
    those of other images.

    A kill loses only the part in progress. Missing, damaged and forgotten originals have no
    features.

    Raises:
        UserError: the extractor does not exist, or needs a package that is not installed, or a file
            of features is damaged.
    """
    missing = [
        part for part in parts_without_features(dataset, name) if only is None or part in only
    ]
    if not missing:
        return
    extractor = load_extractor(name, kind)
    forgotten = read_forgotten(dataset).keys
    journals = {part: _journal_digest(dataset, part) for part in missing}  # before they are read
    parts = {
        part: [one for one in read_part(dataset, part) if one.key not in forgotten]
        for part in missing
    }
    total, done = sum(map(len, parts.values())), 0
    for part, records in parts.items():
        keys: list[int] = []
        rows: list[Features] = []
        decoded_images = _decode_small(dataset, records, log, kind.side)
        while batch := list(islice(decoded_images, _BATCH)):
            done += len(batch)
            good = [(int(key, 16), pixels) for key, pixels in batch if pixels is not None]
            if good:
                try:
                    found = _extract(extractor, good, log)
                except ImportError as error:
                    raise UserError(f"{kind.key}: {name!r} cannot be loaded ({error})") from None
                keys += found
                rows += found.values()
            log.progress(kind.progress, done, total, "images")
        _write_features(features_path(dataset, part, name), keys, rows, journals[part])


def _extract(
    extractor: Extractor, images: Sequence[tuple[int, Pixels]], log: EventLog
) -> dict[int, Features]:
    """Return the features (1, d) of images by key. If the extractor fails for a batch, it is run on
    each image alone."""
    try:
        rows = extractor([pixels for _, pixels in images])
        return {key: row[None] for (key, _), row in zip(images, rows, strict=True)}
    except ImportError:  # a missing package fails every image
        raise
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        if len(images) > 1:
            alone = [_extract(extractor, [image], log) for image in images]
            return {key: row for one in alone for key, row in one.items()}
        key = f"{images[0][0]:016x}"
        log.log_failure(caught_failure("select", key, error, key))
        return {}


def _decode_small(
    dataset: DatasetPaths, records: Sequence[OriginalRecord], log: EventLog, side: int
) -> Iterator[tuple[str, Pixels | None]]:
    for record, data in zip(records, read_originals(dataset, records), strict=True):
        if isinstance(data, DamagedOriginal):
            yield record.key, None
            continue
        try:
            limits = ImageLimits.of_size(record.width, record.height)
            with decoded(data, limits, side) as opened:
                image = opened.image
                shrink = math.ceil(math.sqrt(image.width * image.height / _MAX_PIXELS))
                small = image.reduce(shrink) if shrink > 1 else image
                pixels = np.asarray(small.convert("RGB"))
        except ImageError:
            yield record.key, None
        except Exception as error:  # noqa: BLE001 errors of one image are caught here
            log.log_failure(
                caught_failure("select", f"{record.part}/{record.member}", error, record.key)
            )
            yield record.key, None
        else:
            yield record.key, pixels


def _write_features(
    path: Path, keys: Sequence[int], rows: Sequence[Features], journal: str
) -> None:
    features = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    with atomic_file(path) as file:
        np.savez(
            file, keys=np.array(keys, np.uint64), features=features.astype(np.float16),
            journal=np.array(journal),
        )  # fmt: skip


@contextmanager
def _open_features(path: Path) -> Iterator[Any]:
    """Open a part's file, whose arrays are read when they are used.

    Raises:
        UserError: it is damaged, which the block can say with a ValueError.
    """
    try:
        with path.open("rb") as file, np.load(file) as saved:
            yield saved
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, TypeError):
        raise UserError(
            f"{path}: damaged; remove it and run select, which records them again"
        ) from None


def _load_features(path: Path) -> tuple[Keys, NDArray[np.float16], str]:
    """Return the keys and features in a part's file, and its recorded journal.

    Raises:
        UserError: it is damaged.
    """
    with _open_features(path) as saved:
        keys, features = saved["keys"], saved["features"]
        if keys.dtype != np.uint64 or features.ndim != 2 or keys.shape != features.shape[:1]:
            raise ValueError("keys or features: of another shape")
        return keys, features, _recorded_journal(saved)


def _recorded_journal(saved: Any) -> str:
    """Return the digest of the journal that a part had when its features were computed; empty if an
    earlier version computed them, which did not record it."""
    return str(saved["journal"]) if "journal" in saved else ""


def read_features(dataset: DatasetPaths, name: str) -> Iterator[tuple[Keys, Features]]:
    """Yield the recorded features, part by part, each row scaled to length 1."""
    for keys, features in read_values(dataset, name):
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        yield keys, features / np.maximum(norms, 1e-12)


def read_placed_features(
    dataset: DatasetPaths, name: str, keys: Keys
) -> Iterator[tuple[NDArray[np.int64], Features]]:
    """Yield, part by part, the places (m,) in `keys` of images with recorded features, and these,
    (m, d)."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    for found, features in read_features(dataset, name):
        place = np.minimum(np.searchsorted(ranked, found), max(0, len(ranked) - 1))
        known = ranked[place] == found if len(ranked) else np.zeros(len(found), bool)
        yield order[place[known]], features[known]


def read_values(dataset: DatasetPaths, name: str) -> Iterator[tuple[Keys, Features]]:
    """Yield what an extractor recorded, part by part: keys (n,) and values (n, d). What it recorded
    of images that were fetched again since is left out."""
    for part in planned_parts(dataset):
        path = features_path(dataset, part, name)
        if not path.exists():
            continue
        keys, saved, journal = _load_features(path)
        if len(keys) and journal in ("", _journal_digest(dataset, part)):
            yield keys, saved.astype(np.float32)


def forget_features(dataset: DatasetPaths, part: str, keys: Iterable[str]) -> None:
    """Remove the features of images from a part's files."""
    gone = np.array([int(key, 16) for key in keys], np.uint64)
    for path in dataset.originals_dir.glob(f"{part}.*.npz"):
        try:
            keys, features, journal = _load_features(path)
        except UserError:  # damaged; select records them again
            path.unlink()
            continue
        kept = ~np.isin(keys, gone)
        if not kept.all():
            rows = [features[kept].astype(np.float32)]
            _write_features(path, keys[kept].tolist(), rows, journal)


def sample_features(dataset: DatasetPaths, name: str, ranked: Keys) -> Features:
    """Return the features of about `_MAX_SAMPLE` evenly spaced images, or of all.

    Args:
        ranked: the images, (n,), sorted.
    """
    every = max(1, len(ranked) // _MAX_SAMPLE)
    some = [
        features[np.isin(part, ranked[::every])] for part, features in read_features(dataset, name)
    ]
    return np.concatenate(some) if some else np.zeros((0, 0), np.float32)

"""Reads images from the tars of parts, on this machine or in the store, and edits or deletes
tars."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.contract import DatasetPaths, OriginalRecord, UserError
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.remote.store import read_range, store_of, store_path, stored_tars, upload_part

_PREFETCH = 8


class DamagedOriginal(UserError):
    """The bytes of one original are missing or differ from its record; others may be intact."""


def read_original(dataset: DatasetPaths, record: OriginalRecord) -> bytes:
    """Return the bytes of one image with one seek, or with one request if the tar is in the store.

    Raises:
        UserError: the tar does not exist.
        DamagedOriginal: the tar is shorter than the record says, or cannot be read there.
    """
    path = PartFiles(dataset, record.part).tar
    try:
        data = _read_range(dataset, path, record.offset, record.bytes)
    except FileNotFoundError as error:
        why = error.strerror or "not in the store"
        raise UserError(f"{path}: {record.member}: {why}") from None
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DamagedOriginal(f"{path}: {record.member}: {why}") from None
    if len(data) != record.bytes:
        raise DamagedOriginal(f"{path}: {record.member}: truncated")
    return data


def _read_range(dataset: DatasetPaths, path: Path, offset: int, size: int) -> bytes:
    if dataset.store and not path.exists():
        return read_range(dataset, path, offset, offset + size)
    with path.open("rb") as file:
        file.seek(offset)
        left = max(0, os.fstat(file.fileno()).st_size - offset)
        return file.read(min(size, left))  # a damaged record may have any size


def read_originals(
    dataset: DatasetPaths, records: Iterable[OriginalRecord]
) -> Iterator[bytes | DamagedOriginal]:
    """Yield the bytes of each image in order, or the error of a damaged one. Prefetches from a
    store.

    Raises:
        UserError: a tar does not exist.
    """
    if not dataset.store:
        yield from (_read_or_damage(dataset, record) for record in records)
        return
    with ThreadPoolExecutor(_PREFETCH) as pool:
        waiting: deque[Future[bytes | DamagedOriginal]] = deque()
        for record in records:
            waiting.append(pool.submit(_read_or_damage, dataset, record))
            if len(waiting) > _PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_or_damage(dataset: DatasetPaths, record: OriginalRecord) -> bytes | DamagedOriginal:
    try:
        return read_original(dataset, record)
    except DamagedOriginal as error:
        return error


def parts_without_tar(dataset: DatasetPaths) -> set[str]:
    """Return the planned parts whose tar is neither on this machine nor in the store."""
    gone = {part for part in planned_parts(dataset) if not PartFiles(dataset, part).tar.exists()}
    if gone and dataset.store:
        gone -= {name.removesuffix(".tar") for name in stored_tars(dataset)}
    return gone


def delete_tar(dataset: DatasetPaths, part: str) -> None:
    """Remove a part's tar, also in the store. Its other files are kept, so nothing is fetched
    again."""
    tar = PartFiles(dataset, part).tar
    tar.unlink(missing_ok=True)
    if dataset.store:
        store_of(dataset).remove(store_path(dataset, tar))


@contextmanager
def editable_tar(dataset: DatasetPaths, part: str) -> Iterator[PartFiles | None]:
    """Yield a complete part whose tar is on this machine and may be changed; None if there is no
    tar.

    A tar in the store is downloaded before the block and uploaded after it.
    """
    files = PartFiles(dataset, part)
    if not dataset.store:
        yield files if files.tar.exists() else None
        return
    store = store_of(dataset)
    try:
        if not files.tar.exists():
            store.download(store_path(dataset, files.tar), files.tar)
    except FileNotFoundError:
        yield None
        return
    yield files
    upload_part(dataset, files.without_summary(), files.summary, files.summary.read_bytes())
    files.tar.unlink()

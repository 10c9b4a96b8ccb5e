"""Parts whose tars are in a store.

A part has the same files in the store as in the folder. Its summary is uploaded last, so a part
without one does not count. The plan, journal and summary also stay on this machine, because
planning, selecting and retrying read them; the local tar is removed once the store has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import DatasetPaths
from pipeline.remote.store import Store, open_store


def store_path(dataset: DatasetPaths, path: Path) -> str:
    """Return the path of a dataset's file in the store: its path below the project's folder."""
    return path.relative_to(dataset.root).as_posix()


def store_of(dataset: DatasetPaths) -> Store:
    """Return the store of a dataset that has one."""
    return open_store(dataset.store)


def upload_part(
    dataset: DatasetPaths, files: Sequence[Path], summary: Path, content: bytes
) -> None:
    """Upload the files of a finished part, then its summary with this content."""
    store = store_of(dataset)
    for path in files:
        store.upload(path, store_path(dataset, path))
    store.write(store_path(dataset, summary), content)


def read_range(dataset: DatasetPaths, tar: Path, start: int, end: int) -> bytes:
    """Return the bytes from `start` to before `end` of a tar in the store.

    Raises:
        FileNotFoundError: the store does not have it.
    """
    return store_of(dataset).read(store_path(dataset, tar), start, end)


def stored_tars(dataset: DatasetPaths) -> set[str]:
    """Return the names of the tars that the store has."""
    names = store_of(dataset).list(store_path(dataset, dataset.originals_dir))
    return {name for name in names if name.endswith(".tar")}

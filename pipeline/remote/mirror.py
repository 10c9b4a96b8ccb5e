"""Mirrors a dataset's manifests, logs, crawl state and shards in a store, under the same paths.

Files are written locally and uploaded after a stage. A file appears in the store complete or not at
all, and the shard index appears last. `data/NAME/store.json` caches the state of the store. Only
one machine works on a dataset at a time. If a machine stopped before it uploaded its work and
another one continued, append-only lists are merged; other files can be rebuilt, so the store's
version is used.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.contract import DatasetPaths, JsonlAppender, load_index, without_passwords, write_json
from pipeline.errors import UserError
from pipeline.remote.originals_sync import sync_originals
from pipeline.remote.store import store_of, store_path

SYNC_STATE = "store.json"
FEATURE_SUFFIX = ".npz"
APPEND_ONLY = frozenset(
    {"urls.jsonl", "forgotten.jsonl", "curated.jsonl", "failures.jsonl", "events.jsonl"}
)
_PARALLEL = 4


@dataclass(frozen=True)
class PullResult:
    """The numbers of files and parts downloaded from the store, and of parts of a killed run that
    were uploaded (`sent`)."""

    files: int = 0
    parts: int = 0
    sent: int = 0


def pull(dataset: DatasetPaths) -> PullResult:
    """Download the files that another machine uploaded.

    Shards and their index are not downloaded, because they can be rebuilt or streamed.

    Raises:
        UserError: the store is the project's own folder.
        StoreError: the store does not respond.
    """
    if Path(urlsplit(dataset.store).path).resolve() == dataset.root.resolve():
        raise UserError(f"storage.url: {dataset.store} is the project's own folder")
    synced = sync_originals(dataset)
    known = _SyncState(dataset)
    downloaded = 0
    for folder in _mirrored_folders(dataset):
        there = store_of(dataset).list(store_path(dataset, folder))
        for name, token in sorted(there.items()):
            path = folder / name
            if _is_mirrored(dataset, path):
                downloaded += _pull_file(dataset, path, token, known)
    known.write()
    return PullResult(downloaded, synced.received, synced.sent)


def _mirrored_folders(dataset: DatasetPaths) -> tuple[Path, ...]:
    return dataset.manifest_dir, dataset.failure_log.parent, dataset.data_dir, dataset.originals_dir


def _is_mirrored(dataset: DatasetPaths, path: Path) -> bool:
    """Return True if a file is copied after each stage. Parts are copied when they are complete,
    and the shard index with the shards."""
    if path.parent == dataset.originals_dir:
        return path.suffix == FEATURE_SUFFIX
    if path.parent == dataset.data_dir:
        return path == dataset.crawl_state
    return path != dataset.shard_index


def _pull_file(dataset: DatasetPaths, path: Path, token: str, known: _SyncState) -> bool:
    """Download a file if it has changed in the store; return True if it has."""
    if path.exists() and known.token(path) == token:
        return False
    aside = path.with_name(f".{path.name}.store.tmp")
    store_of(dataset).download(store_path(dataset, path), aside)
    must_merge = path.name in APPEND_ONLY and path.exists() and known.is_changed(path)
    has_local_lines = _append_missing_lines(aside, path) if must_merge else False
    if path == dataset.crawl_state:
        for ending in ("-wal", "-shm"):  # they belong to the database that is replaced
            path.with_name(path.name + ending).unlink(missing_ok=True)
    aside.replace(path)
    if has_local_lines:
        known.note_token(path, token)
    else:
        known.note(path, token)
    return True


def _append_missing_lines(downloaded: Path, local: Path) -> bool:
    """Append the lines that only the local list has to the downloaded one; return True if there
    are any.

    Needs some 100 bytes of memory per line.
    """
    for path in (downloaded, local):
        JsonlAppender(path).close()  # ends or removes a last line without its newline
    with downloaded.open("rb") as file:
        known = {_line_id(line) for line in file}
    with local.open("rb") as file, downloaded.open("ab") as merged:
        before = merged.tell()
        for line in file:
            if _line_id(line) not in known:
                merged.write(line)
        return merged.tell() > before


def _line_id(line: bytes) -> bytes:
    """Return a hash that identifies a line: of its key if it has one, or of the whole line of a
    log or a decision."""
    row = json.loads(line)
    log = "run" in row or "decision" in row
    return hashlib.sha256(line if log else row["key"].encode()).digest()[:8]


def push(dataset: DatasetPaths, variants: Iterable[DatasetPaths] = ()) -> int:
    """Upload changed files to the store; return their number.

    Shards and their index are uploaded once the index exists locally; until then the store keeps
    the previous shards. While shards are replaced, the store has no index.

    Raises:
        StoreError: the store does not respond; the next run continues.
    """
    _checkpoint(dataset.crawl_state)
    known = _SyncState(dataset)
    files = [path for path in _small_files(dataset) if known.is_changed(path)]
    sent = _upload(dataset, files, known)
    for target in (dataset, *variants):
        if target != dataset:
            files = [
                path for path in _visible_files(target.manifest_dir) if path != target.shard_index
            ]
            sent += _upload(dataset, [path for path in files if known.is_changed(path)], known)
        sent += _push_shards(dataset, target, known)
    return sent


def _small_files(dataset: DatasetPaths) -> Iterator[Path]:
    for folder in _mirrored_folders(dataset):
        yield from (path for path in _visible_files(folder) if _is_mirrored(dataset, path))


def _visible_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _push_shards(dataset: DatasetPaths, target: DatasetPaths, known: _SyncState) -> int:
    if not target.shard_index.exists():
        return 0
    store = store_of(dataset)
    wanted = [
        target.shards_dir / Path(one.url).name
        for one in load_index(target.shard_index)[0].shardlist
    ]
    shards = [path for one in wanted for path in (one, one.with_suffix(".json")) if path.exists()]
    changed = [path for path in shards if known.is_changed(path)]
    if not changed and not known.is_changed(target.shard_index):
        return 0
    if changed:
        store.remove(store_path(dataset, target.shard_index))
    sent = _upload(dataset, changed, known) + _upload(dataset, [target.shard_index], known)
    names = {path.name for path in shards}
    for name in store.list(store_path(dataset, target.shards_dir)):
        if name not in names:
            store.remove(store_path(dataset, target.shards_dir / name))
    return sent


def _upload(dataset: DatasetPaths, paths: list[Path], known: _SyncState) -> int:
    if not paths:
        return 0
    store = store_of(dataset)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        stamps = [_stamp(path) for path in paths]
        for _ in pool.map(lambda path: store.upload(path, store_path(dataset, path)), paths):
            pass
    tokens = {folder: store.list(store_path(dataset, folder))
              for folder in {path.parent for path in paths}}  # fmt: skip
    for path, stamp in zip(paths, stamps, strict=True):
        known.note(path, tokens[path.parent].get(path.name, ""), stamp)
    known.write()
    return len(paths)


def _checkpoint(database: Path) -> None:
    """Move the write-ahead log of a database into its file."""
    if database.exists():
        with closing(sqlite3.connect(database)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


class _SyncState:
    """The local stamp and the store's token of each file at the last sync."""

    def __init__(self, dataset: DatasetPaths) -> None:
        self._root = dataset.root
        self._path = dataset.data_dir / SYNC_STATE
        try:
            values = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            values = {}
        self._files: dict[str, Any] = values.get(without_passwords(dataset.store), {})
        self._store = without_passwords(dataset.store)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def token(self, path: Path) -> str | None:
        """Return the store's token of a file at the last sync."""
        return dict(self._files.get(self._name(path), {})).get("there")

    def is_changed(self, path: Path) -> bool:
        """Return True if the local file has changed since the last sync."""
        return bool(self._files.get(self._name(path), {}).get("here") != _stamp(path))

    def note(self, path: Path, token: str, stamp: list[int] | None = None) -> None:
        """Record that the local file and that in the store are the same."""
        self._files[self._name(path)] = {"here": stamp or _stamp(path), "there": token}

    def note_token(self, path: Path, token: str) -> None:
        """Record the store's token of a file that the local one will replace."""
        self._files[self._name(path)] = {"here": None, "there": token}

    def write(self) -> None:
        write_json(self._path, {self._store: self._files})

"""Checkpoints: tensors with metadata, written atomically.

A checkpoint is `NUMBER.pt` (tensors and plain values only: it loads with `weights_only=True`) and
`NUMBER.json`, its metadata, written last, with the size and sha256 of the first. NUMBER is images
seen. A checkpoint without matching metadata is never used.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import (
    describe_os_error,
    is_disk_full,
    migrate,
    now_utc,
    open_regular,
    printable,
    read_bytes,
    remove_temp_files,
    write_atomic,
)
from training.machine.disk import DiskFull, free_bytes
from training.snapshot import pack
from training.versions import CHECKPOINT_MIGRATIONS

UNUSABLE = ".unusable"
"""The extension of a skipped checkpoint: it is kept until the run has passed it."""
_RECORD_BYTES = 1 << 16
Check = Callable[[dict[str, Any]], None]
"""A function that raises `Unusable` if the values of a checkpoint cannot be used."""
MIN_FREE_BYTES = 32 << 20
"""Bytes left free on the disk for logs, samples and the report by default."""


class Unusable(ValueError):
    """The content of a checkpoint or its metadata cannot be used."""


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint on disk, described by its metadata."""

    metadata_path: Path
    seen: int
    bytes: int
    sha256: str
    version: int = len(CHECKPOINT_MIGRATIONS) + 1

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of the metadata file."""
        return {
            "seen": self.seen, "bytes": self.bytes, "sha256": self.sha256, "written": now_utc(),
            "version": self.version,
        }  # fmt: skip

    @property
    def data_path(self) -> Path:
        return self.metadata_path.with_suffix(".pt")


def read_metadata(record: Path) -> dict[str, Any]:
    """Parse metadata; ValueError if it is invalid."""
    values = None
    with suppress(ValueError, RecursionError, OSError):
        values = json.loads(read_bytes(record, _RECORD_BYTES))
    if not isinstance(values, dict):
        raise Unusable(f"{record}: not the metadata of a checkpoint")
    return values


def read_info(record: Path) -> CheckpointInfo:
    """Return the checkpoint of a metadata file; ValueError if it is invalid."""
    values = read_metadata(record)
    version = values.get("version", 1)
    numbers = [values.get("seen"), values.get("bytes"), version]
    if not all(type(one) is int and 0 <= one < 2**53 for one in numbers):
        raise ValueError(f"{record}: not the metadata of a checkpoint")
    if number_of(record) != values["seen"]:
        raise ValueError(f"{record}: its name is not its number of images, {values['seen']}")
    sha256 = str(values.get("sha256"))
    return CheckpointInfo(record, values["seen"], values["bytes"], sha256, version)


def number_of(path: Path) -> int:
    """Return the number in the name of a checkpoint's file; -1 for files of the user."""
    stem, _, extension = path.name.removesuffix(UNUSABLE).partition(".")
    is_own = extension in ("pt", "json") and stem.isdecimal() and stem == f"{int(stem):010d}"
    return int(stem) if is_own else -1


def _records(folder: Path) -> tuple[list[CheckpointInfo], dict[Path, str]]:
    """Return the checkpoints in `folder`, newest first, and what is wrong with other metadata.

    Raises:
        OSError: the folder cannot be read, unlike one that does not exist.
    """
    found, damaged = list[CheckpointInfo](), dict[Path, str]()
    records = list[Path]()
    with suppress(FileNotFoundError, NotADirectoryError):
        # `glob` would yield nothing from a folder that cannot be read
        records = [one for one in folder.iterdir() if one.suffix == ".json" and number_of(one) >= 0]
    for record in sorted(records, reverse=True):
        try:
            found.append(read_info(record))
        except ValueError as error:
            damaged[record] = str(error)
    return sorted(found, key=lambda saved: saved.seen, reverse=True), damaged


def list_checkpoints(folder: Path) -> list[CheckpointInfo]:
    """Return the checkpoints in `folder` that have metadata, newest first, unverified."""
    return _records(folder)[0]


def save(
    folder: Path, seen: int, values: dict[str, Any] | memoryview, keep: int,
    spare: float = MIN_FREE_BYTES,
) -> CheckpointInfo:  # fmt: skip
    """Write a checkpoint of `values`, packed or not, then remove all but the newest `keep`.

    If the disk is too full (`spare` bytes must stay free), old checkpoints are removed first, but
    never the newest complete one.

    Raises:
        DiskFull: there is still not enough space.
    """
    data = values if isinstance(values, memoryview) else pack(values)
    make_room(folder, len(data), spare)
    digest = hashlib.sha256(data).hexdigest()
    saved = CheckpointInfo(folder / f"{seen:010d}.json", seen, len(data), digest)
    while not _written(saved, data):
        old = [other for other in list_checkpoints(folder)[1:] if other.seen != seen]
        if not old:
            raise DiskFull(f"{folder}: no room for a checkpoint of {len(data) / 1e6:.1f} MB")
        remove(old.pop())
    prune(folder, keep)
    return saved


def _written(saved: CheckpointInfo, data: memoryview) -> bool:
    """Write the checkpoint; False if the disk turned out to be full."""
    try:
        write_atomic(saved.data_path, data)  # type: ignore[arg-type]
        write_atomic(saved.metadata_path, json.dumps(saved.metadata) + "\n")
    except OSError as error:
        if not saved.metadata_path.exists():
            saved.data_path.unlink(missing_ok=True)
        if not is_disk_full(error):
            raise
        return False
    return True


def make_room(folder: Path, size: int, spare: float = MIN_FREE_BYTES) -> None:
    """Remove old checkpoints until `size` bytes and `spare` fit beside the newest.

    Raises:
        DiskFull: they do not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = list_checkpoints(folder)[1:]
    while free_bytes(folder) < size + spare:
        if not old:
            raise DiskFull(
                f"{folder}: a checkpoint takes {size / 1e6:.1f} MB and {spare / 1e6:.0f} MB are "
                f"to stay free, the disk has {free_bytes(folder) / 1e6:.1f} MB left"
            )
        remove(old.pop())


def has_room_for(folder: Path, size: int, spare: float = MIN_FREE_BYTES) -> bool:
    """Return True if `size` bytes fit, if necessary in place of all but the newest checkpoint."""
    return free_bytes(folder) + freeable_bytes(folder) >= size + spare


def freeable_bytes(folder: Path) -> int:
    """Return the bytes that removing all checkpoints but the newest and the best would free."""
    return sum(
        saved.bytes
        for saved in list_checkpoints(folder)[1:]
        if saved.data_path.exists() and saved.data_path.stat().st_nlink == 1
    )


def remove(saved: CheckpointInfo) -> None:
    """Remove a checkpoint, its metadata first."""
    remove_file(saved.metadata_path)
    remove_file(saved.data_path)


def remove_file(path: Path) -> None:
    """Remove the file if it exists; a folder of that name is not this program's, and stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and incomplete ones, but no other files."""
    remove_temp_files(folder)
    found = list_checkpoints(folder)
    for saved in found[keep:]:
        remove(saved)
    for path in folder.glob(f"*{UNUSABLE}"):
        if found and 0 <= number_of(path) <= found[0].seen:
            remove_file(path)
    known = {saved.data_path for saved in list_checkpoints(folder)}
    for data in folder.glob("*.pt"):
        if data not in known and number_of(data) >= 0:
            remove_file(data)


def set_aside(folder: Path, after: int) -> None:
    """Rename the skipped checkpoints, and everything with such a name, that are newer than `after`
    images, so that they neither count as the newest nor are in the way of later ones."""
    for path in (*folder.glob("*.json"), *folder.glob("*.pt")):
        if number_of(path) > after:
            target = path.with_name(path.name + UNUSABLE)
            if not target.is_dir():
                path.replace(target)


def load(
    saved: CheckpointInfo, device: torch.device | str = "cpu", check: Check | None = None
) -> dict[str, Any]:
    """Return the verified values of a checkpoint.

    Raises:
        ValueError: its data is missing, incomplete or changed, or does not pass `check`.
    """
    try:
        with os.fdopen(open_regular(saved.data_path), "rb") as file:
            whole = os.fstat(file.fileno()).st_size == saved.bytes
            data = file.read() if whole else b""
    except OSError as error:
        raise ValueError(describe_os_error(error)) from None
    if len(data) != saved.bytes or hashlib.sha256(data).hexdigest() != saved.sha256:
        raise ValueError(f"{saved.data_path}: corrupt: size or sha256 differs from the metadata")
    try:
        unpacked = {**_unpacked(data, device), "version": saved.version}
        values: dict[str, Any] = migrate(unpacked, CHECKPOINT_MIGRATIONS, "metadata")
        if check:
            check(values)
    except Exception as error:  # noqa: BLE001 - the boundary of one checkpoint
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{saved.data_path}: {kind}{printable(str(error), 300)}") from None
    return values


def _unpacked(data: bytes, device: torch.device | str) -> dict[str, Any]:
    """Return the values in the bytes of a checkpoint, without running code; ValueError if they are
    not one."""
    try:
        require_stored(data)
        values = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001 (what is in the file may fail in any way)
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise ValueError(f"not a checkpoint ({type(error).__name__}: {reason})") from None
    if not isinstance(values, dict):
        raise Unusable("not a checkpoint (no values by name)")
    return values


def require_stored(data: bytes) -> None:
    """Raise ValueError if parts of an archive of `torch.save` are compressed, or larger than it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = archive.infolist()
    packed = any(file.compress_type != zipfile.ZIP_STORED for file in files)
    if packed or sum(file.file_size for file in files) > len(data):
        raise ValueError("its parts are larger than the file")


def load_newest(
    folder: Path, device: torch.device | str = "cpu", check: Check | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the values of the newest complete checkpoint that passes `check` (None: there is
    none), and errors of newer ones, one sentence each."""
    found, damaged = _records(folder)
    for saved in found:
        try:
            values = load(saved, device, check)
        except ValueError as error:
            damaged[saved.metadata_path] = str(error)
            continue
        newer = [path for path in damaged if path.name > saved.metadata_path.name]
        return values, [damaged[path] for path in sorted(newer, reverse=True)]
    return None, list(damaged.values())

"""Checkpoints: tensors and their record, whole or not there at all.

A checkpoint is `NUMBER.pt` (tensors and plain values only: it loads with `weights_only=True`) and
`NUMBER.json`, written last, with the size and sha256 of the first. NUMBER is images seen. One that
has no record, or does not fit it, is not trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import now_utc, write_atomic

_SPARE = 32 << 20
"""Bytes left free on the disk for logs, samples and the report."""


class DiskFull(Exception):
    """There is no room for another checkpoint; what was saved before is whole."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk by its record."""

    record: Path
    seen: int
    bytes: int
    sha256: str

    @property
    def data(self) -> Path:
        return self.record.with_suffix(".pt")


def listed(folder: Path) -> list[Saved]:
    """The checkpoints in `folder` that have a record, the newest first; nothing is verified."""
    found = []
    for record in folder.glob("*.json"):
        try:
            values = json.loads(record.read_text())
            found.append(Saved(record, values["seen"], values["bytes"], values["sha256"]))
        except (ValueError, KeyError, OSError):
            continue
    return sorted(found, key=lambda saved: saved.seen, reverse=True)


def save(folder: Path, seen: int, values: dict[str, Any], keep: int) -> Saved:
    """Write a checkpoint, then remove all but the newest `keep`.

    Where the disk has no room, old checkpoints go first (never the newest whole one).

    Raises:
        DiskFull: there is no room even so.
    """
    buffer = io.BytesIO()
    torch.save(values, buffer)
    data = buffer.getbuffer()
    make_room(folder, len(data))
    digest = hashlib.sha256(data).hexdigest()
    saved = Saved(folder / f"{seen:010d}.json", seen, len(data), digest)
    record = {"seen": seen, "bytes": len(data), "sha256": digest, "written": now_utc()}
    try:
        write_atomic(saved.data, data)  # type: ignore[arg-type]
        write_atomic(saved.record, json.dumps(record) + "\n")
    except OSError as error:
        saved.data.unlink(missing_ok=True)
        raise DiskFull(f"{folder}: {error.strerror}") from None
    prune(folder, keep)
    return saved


def make_room(folder: Path, size: int) -> None:
    """Remove old checkpoints until `size` bytes fit beside the newest.

    Raises:
        DiskFull: they do not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = listed(folder)[1:]
    while shutil.disk_usage(folder).free < size + _SPARE:
        if not old:
            free = shutil.disk_usage(folder).free
            raise DiskFull(
                f"{folder}: a checkpoint takes {size >> 20} MB, the disk has {free >> 20} MB free"
            )
        remove(old.pop())


def room_for_another(folder: Path, size: int) -> bool:
    """Whether a checkpoint of `size` bytes fits, if need be in the place of all but the newest."""
    freed = sum(saved.bytes for saved in listed(folder)[1:])
    return shutil.disk_usage(folder).free + freed >= size + _SPARE


def remove(saved: Saved) -> None:
    """Remove a checkpoint, its record first."""
    saved.record.unlink(missing_ok=True)
    saved.data.unlink(missing_ok=True)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and data that a kill left without record."""
    for saved in listed(folder)[keep:]:
        remove(saved)
    known = {saved.data for saved in listed(folder)}
    for data in folder.glob("*.pt"):
        if data not in known:
            data.unlink(missing_ok=True)


def load(saved: Saved, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The values of a checkpoint, verified.

    Raises:
        ValueError: its data is missing, cut short or altered.
    """
    try:
        data = saved.data.read_bytes()
    except OSError as error:
        raise ValueError(f"{saved.data}: {error.strerror}") from None
    if len(data) != saved.bytes or hashlib.sha256(data).hexdigest() != saved.sha256:
        raise ValueError(f"{saved.data}: its bytes are not those its record names")
    values: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return values


def load_newest(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint's values (None: there is none), and what was wrong with newer
    ones, a sentence each."""
    damaged: list[str] = []
    for saved in listed(folder):
        try:
            return load(saved, device), damaged
        except ValueError as error:
            damaged.append(str(error))
    return None, damaged

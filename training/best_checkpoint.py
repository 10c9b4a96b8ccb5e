"""The best checkpoint by the evaluations, and checkpoints by name.

The best one is also in the folder `best`, where only a better one replaces it; its metadata
contains the criterion. While the ordinary one exists too, both are one file.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import (
    UserError,
    atomic_file,
    is_disk_full,
    remove_temp_files,
    write_atomic,
)
from training.checkpoint import (
    Check,
    CheckpointInfo,
    list_checkpoints,
    load,
    load_newest,
    number_of,
    read_info,
    read_metadata,
    remove_file,
)

BEST = "best"
"""The folder of the best checkpoint, beside the newest ones."""


@dataclass(frozen=True)
class Best:
    """The best checkpoint: `value` of `criterion`, which says what was measured and how."""

    saved: CheckpointInfo
    criterion: str
    value: float


def best(folder: Path) -> Best | None:
    """Return the best checkpoint in `folder`, or None."""
    found: list[tuple[int, Best]] = []
    for record in (folder / BEST).glob("*.json"):
        try:
            saved, values = read_info(record), read_metadata(record)
            kept = Best(saved, str(values["measure"]), float(values["value"]))
            if saved.data_path.stat().st_size == saved.bytes and math.isfinite(kept.value):
                found.append((record.stat().st_mtime_ns, kept))
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            continue
    # two: the process was killed between writing the better one and removing the other
    return max(found, key=lambda one: one[0])[1] if found else None


def is_best(folder: Path, criterion: str, value: float) -> bool:
    """Return True if `value` is lower than the best's, or the best has another criterion."""
    kept = best(folder)
    return kept is None or kept.criterion != criterion or value < kept.value


def keep_best(folder: Path, seen: int, criterion: str, value: float) -> bool:
    """Keep the checkpoint with that number in `folder` as the best, in place of the previous one.

    Returns:
        False if the disk has no space for a copy (none is needed if files can be linked).

    Raises:
        ValueError: there is no such checkpoint.
    """
    saved = next((one for one in list_checkpoints(folder) if one.seen == seen), None)
    if saved is None:
        raise ValueError(f"{folder}: no checkpoint at {seen}")
    place = folder / BEST
    place.mkdir(exist_ok=True)
    kept = replace(saved, metadata_path=place / saved.metadata_path.name)
    record = {**kept.metadata, "measure": criterion, "value": value}
    try:
        _link_or_copy(saved.data_path, kept.data_path)
        write_atomic(kept.metadata_path, json.dumps(record) + "\n")
    except OSError as error:
        if not kept.metadata_path.exists():
            kept.data_path.unlink(missing_ok=True)
        if not is_disk_full(error):
            raise
        return False
    remove_temp_files(place)
    for other in (*place.glob("*.json"), *place.glob("*.pt")):
        if number_of(other) not in (-1, seen):
            remove_file(other)
    return True


def _link_or_copy(source: Path, target: Path) -> None:
    """Replace `target` with a link to `source`, or a copy; at every moment one of both exists."""
    if target.exists() and target.samefile(source):
        return
    link = target.with_name(f".{target.name}.link.tmp")  # `remove_temp_files` knows the extension
    link.unlink(missing_ok=True)
    try:
        os.link(source, link)
        link.replace(target)
    except OSError as error:
        if is_disk_full(error):
            raise
        with source.open("rb") as data, atomic_file(target) as copy:
            shutil.copyfileobj(data, copy)


def load_named(
    folder: Path, which: str, device: torch.device | str = "cpu", check: Check | None = None
) -> dict[str, Any]:
    """Return the values of a checkpoint: the `newest` usable one, the `best`, or that at this many
    kimg. `check` as in `load`.

    Raises:
        UserError: there is none.
    """
    if which == "newest":
        values, damaged = load_newest(folder, device, check)
        if values is None:
            if damaged:
                raise UserError(f"{folder}: no whole checkpoint ({damaged[0]})")
            raise UserError(f"{folder}: no checkpoint yet; training writes the first one")
        for sentence in damaged:
            print(f"warning: {sentence}; using the previous one", file=sys.stderr)
        return values
    kept = best(folder)
    there = ([kept.saved] if kept else []) + list_checkpoints(folder)
    chosen = there[:1] if which == BEST and kept else [s for s in there if _is_at(s, which)]
    if not chosen:
        names = [f"{saved.seen / 1000:g}" for saved in list_checkpoints(folder)]
        raise UserError(
            f"{folder}: no checkpoint {which!r}; there are newest"
            + (", best" if kept else "") + "".join(f", {name}" for name in names)
        )  # fmt: skip
    try:
        return load(chosen[0], device, check)
    except ValueError as error:
        raise UserError(str(error)) from None


def _is_at(saved: CheckpointInfo, kimg: str) -> bool:
    try:
        return saved.seen == round(float(kimg) * 1000)
    except (ValueError, OverflowError):
        return False

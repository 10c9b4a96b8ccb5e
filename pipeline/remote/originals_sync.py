"""Synchronizes the originals with the store before work begins.

What a killed run left, or was downloaded before there was a store, is uploaded. Parts that another
machine has uploaded are downloaded without their tars, so nothing in them is requested again.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.contract import DatasetPaths, write_atomic
from pipeline.originals.parts import (
    INDEX,
    PartFiles,
    has_damaged_summary,
    is_complete,
    planned_parts,
    read_summary,
)
from pipeline.remote.part_store import store_of, store_path, upload_part

_AT_ONCE = 8


@dataclass(frozen=True)
class SyncResult:
    """Parts that went into the store and parts that were new to this machine."""

    sent: int = 0
    received: int = 0


def sync_originals(dataset: DatasetPaths) -> SyncResult:
    """Synchronize both sides. No process works on a part meanwhile.

    Raises:
        StoreError: the store does not respond; what was done so far stays.
    """
    names = store_of(dataset).list(store_path(dataset, dataset.originals_dir))
    there = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    here = {
        part
        for part in planned_parts(dataset)
        if is_complete(dataset, part) and not has_damaged_summary(dataset, part)
    }
    tars = {part for part in here if PartFiles(dataset, part).tar.exists()}
    stored = {name.removesuffix(".tar") for name in names if name.endswith(".tar")}
    sent = [
        part
        for part in sorted(tars)
        if part not in there or part not in stored or _differs(dataset, part)
    ]
    for part in sent:
        files = PartFiles(dataset, part)
        upload_part(dataset, files.without_summary(), files.summary, files.summary.read_bytes())
    for part in tars:
        PartFiles(dataset, part).tar.unlink()
    new = sorted(there - here)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda part: _adopt_part(dataset, part), new):
            pass
    return SyncResult(len(sent), len(new))


def _differs(dataset: DatasetPaths, part: str) -> bool:
    """Return True if the store has another tar by its record: a run that erased images was
    killed."""
    files = PartFiles(dataset, part)
    try:
        theirs = json.loads(store_of(dataset).read(store_path(dataset, files.summary)))["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        theirs = ""  # damaged there: it is sent again
    return bool(theirs != read_summary(files)["sha256"])


def _adopt_part(dataset: DatasetPaths, part: str) -> None:
    """Download a part from the store; a partial local copy of it is discarded."""
    files = PartFiles(dataset, part)
    plan, journal, record = (
        store_of(dataset).read(store_path(dataset, path))
        for path in (files.plan, files.journal, files.summary)
    )
    if files.plan.exists() and files.plan.read_bytes() != plan:
        # Rows that were planned here alone are to be planned again.
        (dataset.originals_dir / INDEX).unlink(missing_ok=True)
    for path, data in ((files.plan, plan), (files.journal, journal), (files.summary, record)):
        write_atomic(path, data)
    files.tar.unlink(missing_ok=True)

"""Synchronizes the originals with the store before work begins.

Parts that a killed run left, or that were downloaded before the recipe had a store, are uploaded.
Parts that another machine has uploaded are downloaded without their tars, so none of their images
is requested again.
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
from pipeline.remote.store import store_of, store_path, upload_part

_PARALLEL = 8


@dataclass(frozen=True)
class SyncResult:
    """The numbers of parts that were uploaded and downloaded."""

    sent: int = 0
    received: int = 0


def sync_originals(dataset: DatasetPaths) -> SyncResult:
    """Upload and download missing parts. Call it only if no process works on a part.

    Raises:
        StoreError: the store does not respond; finished parts are kept.
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
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for _ in pool.map(lambda part: _adopt_part(dataset, part), new):
            pass
    return SyncResult(len(sent), len(new))


def _differs(dataset: DatasetPaths, part: str) -> bool:
    """Return True if the part's summary in the store is of another tar, because a run that erased
    images was killed."""
    files = PartFiles(dataset, part)
    try:
        theirs = json.loads(store_of(dataset).read(store_path(dataset, files.summary)))["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        theirs = ""  # damaged, so the part is uploaded again
    return bool(theirs != read_summary(files)["sha256"])


def _adopt_part(dataset: DatasetPaths, part: str) -> None:
    """Download a part from the store and discard a partial local copy."""
    files = PartFiles(dataset, part)
    plan, journal, summary = (
        store_of(dataset).read(store_path(dataset, path))
        for path in (files.plan, files.journal, files.summary)
    )
    if files.plan.exists() and files.plan.read_bytes() != plan:
        # Rows that were only in the local plan must be planned again.
        (dataset.originals_dir / INDEX).unlink(missing_ok=True)
    for path, data in ((files.plan, plan), (files.journal, journal), (files.summary, summary)):
        write_atomic(path, data)
    files.tar.unlink(missing_ok=True)

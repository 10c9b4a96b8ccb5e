"""Scans of several tars, cached until a tar changes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.contract import (
    UserError,
    count_of,
    local_path,
    parse_config,
    read_bytes,
    remove_temp_files,
    report_waiting,
    write_atomic,
)
from pipeline.contract.index import MAX_SHARD_BYTES
from pipeline.contract.tar import DamagedTar
from training.streaming.ranges import RangeReader, open_ranges
from training.streaming.tar_scan import SampleOptions, TarScan, scan_tar

_THREADS = 16
_STALE_SECONDS = 3600.0
"""Age of temporary files that no other process can still be writing."""
_LOCAL_AHEAD, _REMOTE_AHEAD = 4096, 512


@dataclass(frozen=True)
class FoundTar:
    """A tar, and what an index states about it, if it does. `labels` are the names of its class
    numbers; `channels` is 0 if unknown."""

    location: str
    samples: int | None = None
    size: int | None = None
    sha256: str = ""
    labels: tuple[str, ...] = ()
    channels: int = 0


def scan_tars(
    tars: Sequence[FoundTar], options: SampleOptions, cache: Path, timeout: float,
    notes: list[str] | None,
) -> list[TarScan | None]:  # fmt: skip
    """Scan all tars, several at a time if they are remote. Damaged ones are added to `notes`, or
    raise. The first error ends all scans."""
    stop, done = threading.Event(), 0
    with suppress(OSError):
        remove_temp_files(cache, _STALE_SECONDS)

    def scan(tar: FoundTar) -> TarScan | None:
        try:
            return _scan(tar, options, cache, timeout, stop)
        except DamagedTar as error:
            if notes is None:
                raise UserError(f"{tar.location}: {error}") from None
            notes.append(f"{tar.location}: {error}; left out")
            return None

    if all(local_path(tar.location) is not None for tar in tars):
        return [scan(tar) for tar in tars]
    with report_waiting(
        tars[0].location, lambda: f"{done} of {count_of(len(tars), 'tar')} scanned"
    ):
        pool = ThreadPoolExecutor(_THREADS)
        try:
            scans = [pool.submit(scan, tar) for tar in tars]
            for finished in as_completed(scans):
                finished.result()
                done += 1
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [one.result() for one in scans]


class _Stopped(Exception):
    """Another scan has failed."""


@dataclass
class _StoppableReader:
    """A reader that raises `_Stopped` once `stop` is set."""

    reader: RangeReader
    stop: threading.Event

    @property
    def size(self) -> int:
        return self.reader.size

    @property
    def validator(self) -> str:
        return self.reader.validator

    def pread(self, count: int, offset: int) -> bytes:
        if self.stop.is_set():
            raise _Stopped
        return self.reader.pread(count, offset)

    def close(self) -> None:
        self.reader.close()


def _scan(
    tar: FoundTar, options: SampleOptions, cache: Path, timeout: float, stop: threading.Event
) -> TarScan:
    path = cache / f"{sha256_of_texts(tar.location, options.key_id)[:32]}.json"
    reader = _StoppableReader(open_ranges(tar.location, timeout), stop)
    try:
        if reader.size > MAX_SHARD_BYTES:
            raise UserError(f"{tar.location}: states a size of {reader.size} bytes; download it")
        scan = _cached(path, reader)
        if scan is None:
            ahead = _LOCAL_AHEAD if local_path(tar.location) is not None else _REMOTE_AHEAD
            scan = scan_tar(reader, options, ahead)
            with suppress(OSError):
                write_atomic(path, json.dumps(scan.to_json()))
    finally:
        reader.close()
    for stated, found, what in (
        (tar.size, scan.size, "bytes"), (tar.samples, scan.samples + scan.others, "samples"),
    ):  # fmt: skip
        if stated is not None and stated != found:
            raise UserError(f"{tar.location}: {found} {what}, the index says {stated}")
    return scan


def _cached(path: Path, reader: RangeReader) -> TarScan | None:
    """Return an earlier scan of the same file; None if there is none."""
    try:
        scan = parse_config(TarScan, json.loads(read_bytes(path)), str(path))
    except (OSError, ValueError, RecursionError, UserError):
        return None
    is_same = (scan.size, scan.validator) == (reader.size, reader.validator)
    return scan if is_same and reader.validator and scan.is_consistent else None


def sha256_of_texts(*parts: str) -> str:
    """Return a sha256 in hex; different lists of texts give different ones."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

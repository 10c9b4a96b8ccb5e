"""Opening shards: local files in place, others through a bounded cache; verified before use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from pipeline.contract import ShardEntry, UserError
from training.tar import DamagedTar, Sample, samples

_CHUNK = 1 << 20


class DamagedShard(Exception):
    """A shard that is not what the index says."""


@dataclass
class Shard:
    """An open, verified shard: an own file descriptor, so it stays readable if unlinked."""

    fd: int
    samples: list[Sample]

    def read(self, sample: int, ending: str) -> bytes | None:
        """The bytes of a member of the sample with that number, None where it has none."""
        extent = self.samples[sample].members.get(ending)
        return None if extent is None else os.pread(self.fd, extent.size, extent.offset)

    def close(self) -> None:
        os.close(self.fd)


def sha256_of(fd: int) -> str:
    """The sha256 of a whole open file, in hex."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(fd, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def open_verified(fd: int, entry: ShardEntry, where: str, trusted: bool = False) -> Shard:
    """The shard in file `fd`, which it takes over.

    `trusted` leaves out the hash, for a file that this process has verified before.

    Raises:
        DamagedShard: size, sha256, archive or sample count is not what the index says.
    """
    try:
        size = os.fstat(fd).st_size
        if size != entry.bytes:
            raise DamagedShard(f"{where}: {size} bytes, the index says {entry.bytes}")
        if not trusted and sha256_of(fd) != entry.sha256:
            raise DamagedShard(f"{where}: its sha256 is not the index's")
        try:
            found = samples(lambda count, offset: os.pread(fd, count, offset))
        except DamagedTar as error:
            raise DamagedShard(f"{where}: {error}") from None
        if len(found) != entry.nsamples:
            raise DamagedShard(f"{where}: {len(found)} samples, the index says {entry.nsamples}")
    except BaseException:
        os.close(fd)
        raise
    return Shard(fd, found)


Opener = Callable[[int], int]
"""Number of a shard → a file descriptor of its bytes (which the caller closes)."""


@dataclass
class LocalFiles:
    """Shards that lie in the file system."""

    paths: list[Path]

    def __call__(self, number: int) -> int:
        try:
            return os.open(self.paths[number], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{self.paths[number]}: {error.strerror}") from None


@dataclass
class OpenShards:
    """The shards that are open now, by number."""

    entries: tuple[ShardEntry, ...]
    locations: list[str]
    opener: Opener
    _open: dict[int, Shard] = field(default_factory=dict)
    _verified: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def get(self, number: int) -> Shard:
        """Shard `number`, opened and verified if it was not open.

        Raises:
            DamagedShard, UserError: it cannot be had.
        """
        with self._lock:
            if number not in self._open:
                fd = self.opener(number)
                trusted = number in self._verified and isinstance(self.opener, LocalFiles)
                entry, where = self.entries[number], self.locations[number]
                self._open[number] = open_verified(fd, entry, where, trusted)
                self._verified.add(number)
            return self._open[number]

    def release(self, number: int) -> None:
        """Close shard `number` if it is open."""
        with self._lock:
            shard = self._open.pop(number, None)
        if shard:
            shard.close()

    def close(self) -> None:
        for number in list(self._open):
            self.release(number)

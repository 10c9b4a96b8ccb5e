"""Opening of shards: local files in place, others through a disk cache; verified before use."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.contract import ShardEntry, UserError, count_of, describe_os_error, open_regular
from pipeline.contract.tar import DamagedTar, TarSample, samples
from training.streaming.foreign import ScannedShard
from training.streaming.tar_scan import pick_image

_CHUNK = 1 << 20


class DamagedShard(UserError):
    """A shard that does not match the index; the message names it."""


class DamagedSample(DamagedShard):
    """A sample that cannot be used in a shard that can; the message names it."""


@dataclass
class Shard:
    """An open, verified shard with its own file descriptor, so it stays readable if unlinked."""

    fd: int
    samples: list[TarSample]

    def read(self, sample: int, extension: str, most: int) -> bytes | None:
        """Return the bytes of a member of the sample with that number, or None.

        Raises:
            ValueError: there are more than `most`.
        """
        extent = self.samples[sample].members.get(extension)
        if extent is None:
            return None
        if extent.size > most:
            raise ValueError(f"has {extent.size} bytes, at most {most} are read")
        return os.pread(self.fd, extent.size, extent.offset)

    def close(self) -> None:
        os.close(self.fd)


def sha256_of(fd: int) -> str:
    """Return the sha256 of an open file, in hex."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(fd, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def open_verified(
    fd: int,
    entry: ShardEntry,
    where: str,
    trusted: bool = False,
    known: list[TarSample] | None = None,
) -> Shard:
    """Return the shard in file `fd`, taking ownership; `known` are its samples, if they were found
    before in the same bytes.

    `trusted` skips the hashes, for a file that this process has verified before. Samples without an
    image are left out of shards without a complete index.

    Raises:
        DamagedShard: size, sha256, headers, archive or sample count do not match the index.
    """
    try:
        size = os.fstat(fd).st_size
        if size != entry.bytes:
            raise DamagedShard(f"{where}: {size} bytes, the index says {entry.bytes}")
        if entry.sha256 and not trusted and sha256_of(fd) != entry.sha256:
            raise DamagedShard(f"{where}: its sha256 is not the index's")
        if trusted and known is not None:
            return Shard(fd, known)
        try:
            found = _samples(fd, entry, where, not trusted)
        except DamagedTar as error:
            raise DamagedShard(f"{where}: {error}") from None
        if len(found) != entry.nsamples:
            raise DamagedShard(
                f"{where}: {count_of(len(found), 'sample')}, the index says {entry.nsamples}"
            )
    except BaseException:
        os.close(fd)
        raise
    return Shard(fd, found)


def _samples(fd: int, entry: ShardEntry, where: str, check: bool) -> list[TarSample]:
    def pread(count: int, offset: int) -> bytes:
        return os.pread(fd, count, offset)

    if not isinstance(entry, ScannedShard):
        return samples(pread, entry.bytes, check, entry.nsamples)
    headers = hashlib.sha256() if check else None
    found = samples(pread, entry.bytes, check, digest=headers)
    if headers is not None and headers.hexdigest() != entry.headers:
        raise DamagedShard(f"{where}: changed since it was scanned; run the command again")
    return [sample for sample in found if pick_image(sample.members, entry.image)]


def open_local(path: Path) -> int:
    """Return a descriptor of the file; UserError if it cannot be opened."""
    try:
        return open_regular(path)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None


class ShardOpener(Protocol):
    """A source of shard bytes, by number."""

    def open(self, number: int) -> int: ...
    def prefetch(self, number: int) -> None: ...
    def release(self, number: int) -> None: ...
    def invalidate(self, number: int) -> bool: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class LocalShards:
    """Local shards, opened in place."""

    paths: list[Path]

    def open(self, number: int) -> int:
        return open_local(self.paths[number])

    def prefetch(self, number: int) -> None:
        pass

    def release(self, number: int) -> None:
        pass

    def invalidate(self, number: int) -> bool:  # noqa: ARG002 (the user's file is left alone)
        return False

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


MAX_INDEXED_SAMPLES = 200_000
"""Maximum number of samples whose positions in the shards are kept in memory (about 0.5 kB
each)."""

Signature = tuple[int, int, int, int]


def _signature(fd: int) -> Signature:
    """Return a value that changes when a file is replaced or written to."""
    about = os.fstat(fd)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


@dataclass
class ShardPool:
    """The open shards, by number. For one thread.

    A file that was verified once and has not changed since is not hashed again.
    """

    entries: tuple[ShardEntry, ...]
    locations: list[str]
    opener: ShardOpener
    _open: dict[int, Shard] = field(default_factory=dict)
    _verified: dict[int, Signature] = field(default_factory=dict)
    _samples: dict[int, list[TarSample]] = field(default_factory=dict)

    def get(self, number: int) -> Shard:
        """Return shard `number`, opened and verified if it was not open. A damaged one from a URL
        is fetched once more.

        Raises:
            DamagedShard, UserError: it cannot be opened.
        """
        if number not in self._open:
            try:
                self._open[number] = self._opened(number)
            except DamagedShard as error:
                if not self.opener.invalidate(number):
                    raise
                self._open[number] = self._again(number, error)
        return self._open[number]

    def _again(self, number: int, first: DamagedShard) -> Shard:
        try:
            return self._opened(number)
        except DamagedShard as error:
            self.opener.invalidate(number)
            other = "" if str(first) == str(error) else f"; the first time: {first}"
            raise DamagedShard(f"{error} (fetched twice{other})") from None

    def _opened(self, number: int) -> Shard:
        fd = self.opener.open(number)
        try:
            signature = _signature(fd)
            trusted = self._verified.get(number) == signature
            entry, where = self.entries[number], self.locations[number]
            shard = open_verified(fd, entry, where, trusted, self._samples.get(number))
        except BaseException:
            self.opener.release(number)
            raise
        self._verified[number] = signature
        if sum(other.nsamples for other in self.entries) <= MAX_INDEXED_SAMPLES:
            self._samples[number] = shard.samples
        return shard

    def release(self, number: int) -> None:
        """Close shard `number` if it is open."""
        shard = self._open.pop(number, None)
        if shard:
            shard.close()
            self.opener.release(number)

    def close(self) -> None:
        for number in list(self._open):
            self.release(number)
        self.opener.close()

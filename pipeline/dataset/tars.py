"""Tar archives whose bytes depend on their members alone: no times, no owners, no padding rules.

POSIX ustar, as every tar and WebDataset reader takes it.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

BLOCK = 512
_MAX_NAME = 100
_MODE_OWNERS = b"0000644\0" + 2 * b"0000000\0"
_TIME = b"00000000000\0"
_REST = (
    b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + 2 * b"0000000\0" + bytes(167)
)  # type, link, magic and version, names of the owners, device, prefix
_SUM_BESIDES = sum(_MODE_OWNERS + _TIME + b" " * 8 + _REST)
"""What name and size are added to: a header's checksum counts its own field as spaces."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def tar_header(name: str, size: int) -> bytes:
    """The 512-byte header of a plain file: mode 0644, owner 0, time 0.

    Raises:
        ValueError: the name is longer than 100 bytes.
    """
    encoded = name.encode()
    if len(encoded) > _MAX_NAME:
        raise ValueError(f"{name!r}: a member's name has at most {_MAX_NAME} bytes")
    octal = b"%011o\0" % size
    checksum = _SUM_BESIDES + sum(encoded) + sum(octal)
    return b"%b%b%b%b%06o\0 %b" % (
        encoded, bytes(_MAX_NAME - len(encoded)), _MODE_OWNERS, octal + _TIME, checksum, _REST
    )  # fmt: skip


class TarWriter:
    """Writes members one after the other, and knows the archive's size and sha256 at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash: _Hash = hashlib.sha256()
        self.nbytes = 0

    def add(self, name: str, data: bytes) -> None:
        self._write(b"".join((tar_header(name, len(data)), data, bytes(-len(data) % BLOCK))))

    def close(self) -> None:
        """Write the end-of-archive blocks. The file itself stays open."""
        self._write(bytes(2 * BLOCK))

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.nbytes += len(data)


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a WebDataset tar in order: the key, and the members' bytes by ending.

    Raises:
        tarfile.TarError, OSError: it is no whole tar.
    """
    key, files = "", dict[str, bytes]()
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None:
                continue
            name, _, ending = member.name.partition(".")
            if name != key and files:
                yield key, files
                files = {}
            key = name
            files[ending] = file.read()
    if files:
        yield key, files

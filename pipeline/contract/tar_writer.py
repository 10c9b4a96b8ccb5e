"""Writer of tar archives of samples and originals.

Its bytes (POSIX ustar) depend only on the members: no times, no owners.
"""

from __future__ import annotations

import hashlib
from typing import IO

from pipeline.contract.tar import BLOCK, Hash

_MAX_NAME = 100
_MODE_OWNERS = b"0000644\0" + 2 * b"0000000\0"
_TIME = b"00000000000\0"
_REST = (
    b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + 2 * b"0000000\0" + bytes(167)
)  # type, link, magic and version, names of the owners, device, prefix
_BASE_SUM = sum(_MODE_OWNERS + _TIME + b" " * 8 + _REST)
"""The part of a header's checksum that does not depend on name and size; the checksum's own field
counts as spaces."""


def tar_header(name: str, size: int) -> bytes:
    """Return the 512-byte header of a regular file: mode 0644, owner 0, time 0.

    Raises:
        ValueError: the name is longer than 100 bytes.
    """
    encoded = name.encode()
    if len(encoded) > _MAX_NAME:
        raise ValueError(f"{name!r}: a member's name has at most {_MAX_NAME} bytes")
    octal = b"%011o\0" % size
    checksum = _BASE_SUM + sum(encoded) + sum(octal)
    return b"%b%b%b%b%06o\0 %b" % (
        encoded, bytes(_MAX_NAME - len(encoded)), _MODE_OWNERS, octal + _TIME, checksum, _REST
    )  # fmt: skip


class TarWriter:
    """Writes members one after another and computes the archive's size and sha256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash: Hash = hashlib.sha256()
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

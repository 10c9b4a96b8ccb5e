"""Tar archives whose bytes depend on their members alone: no times, no owners, no padding rules.

POSIX ustar, as every tar and WebDataset reader takes it.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

BLOCK = 512
MAX_MEMBER = 256 << 20
"""In bytes: a larger member is no sample's."""
_MAX_NAME = 100
_MAX_HEADER = 1 << 20
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


@dataclass(frozen=True)
class TarEntry:
    """A member of a tar: its bytes are the `size` at `offset`, unless it is none that can be read:
    `wrong` then says why."""

    name: str
    offset: int
    size: int
    wrong: str = ""


class _Header(tarfile.TarInfo):
    """A header that cannot make tarfile read without end or without bound."""

    _NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
              tarfile.GNUTYPE_LONGLINK)  # fmt: skip

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in self._NAMES and self.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header of {self.size} bytes at {self.offset}")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


def tar_entries(path: Path) -> Iterator[TarEntry]:
    """The members of an uncompressed tar in order, except folders; nothing of them is read.

    Raises:
        tarfile.TarError: it is no tar, or is damaged after the entries so far.
        OSError: it cannot be read.
    """
    try:
        with tarfile.open(path, "r:", tarinfo=_Header) as archive:
            before = -1
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they are not needed again
                if member.size < 0 or member.offset <= before:
                    raise tarfile.ReadError(f"a size of {member.size} bytes at {member.offset}")
                before = member.offset
                if not member.isdir():
                    yield TarEntry(
                        member.name, member.offset_data, member.size, _why_unreadable(member)
                    )
            _check_end(archive)
    except (tarfile.TarError, OSError, GeneratorExit):
        raise
    except Exception as error:  # tarfile raises what it likes of a damaged header
        raise tarfile.ReadError(f"{type(error).__name__}: {error}") from error


def _why_unreadable(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file"
    if member.issym() or member.islnk():
        return "a link"
    return "" if member.isreg() else "no file"


def _check_end(archive: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {archive.offset}")


def read_entry(file: IO[bytes], entry: TarEntry) -> bytes:
    """The bytes of a member of the open tar `file`.

    Raises:
        tarfile.TarError: it is no file, is larger than `MAX_MEMBER`, or is cut off.
    """
    if entry.wrong:
        raise tarfile.ReadError(f"{entry.name}: {entry.wrong}")
    if entry.size > MAX_MEMBER:
        raise tarfile.ReadError(f"{entry.name}: {entry.size} bytes are over {MAX_MEMBER}")
    file.seek(entry.offset)
    data = file.read(entry.size)
    if len(data) < entry.size:
        raise tarfile.ReadError(f"{entry.name}: cut off")
    return data


def sample_entries(path: Path) -> Iterator[tuple[str, dict[str, TarEntry]]]:
    """The samples of a WebDataset tar in order: the key, and the members by ending.

    Raises:
        tarfile.TarError, OSError: as `tar_entries`.
    """
    key, files = "", dict[str, TarEntry]()
    damage: tarfile.TarError | None = None
    entries = tar_entries(path)
    while True:
        try:
            entry = next(entries, None)
        except tarfile.TarError as error:
            entry, damage = None, error
        if entry is None:
            break
        folder, slash, base = entry.name.rpartition("/")
        name, _, ending = base.partition(".")
        name = folder + slash + name
        if name != key and files:
            yield key, files
            files = {}
        key = name
        files[ending] = entry
    if files:
        yield key, files
    if damage is not None:  # the samples before it are whole
        raise damage


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a WebDataset tar in order: the key, and the members' bytes by ending.

    Raises:
        tarfile.TarError, OSError: it is no whole tar.
    """
    with path.open("rb") as file:
        for key, files in sample_entries(path):
            yield key, {ending: read_entry(file, entry) for ending, entry in files.items()}

"""Reads tar archives of other programs, for the import.

Unlike `contract.tar`, it accepts every format that Python's tarfile supports, names the members
that cannot be read, and yields the samples before damage.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

BLOCK = 512
MAX_MEMBER = 256 << 20
"""Size limit of a member, in bytes."""
_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class TarEntry:
    """A member of a tar: `size` bytes from `offset`. `wrong` says why it cannot be read, if so."""

    name: str
    offset: int
    size: int
    wrong: str = ""


class _Header(tarfile.TarInfo):
    """A header; refuses sizes that would make tarfile read endlessly or too much."""

    _NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
              tarfile.GNUTYPE_LONGLINK)  # fmt: skip

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in cls._NAMES and found.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def tar_entries(file: IO[bytes]) -> Iterator[TarEntry]:
    """Yield the members of an uncompressed tar in order, except folders, without reading their
    bytes.

    Raises:
        tarfile.TarError: it is not a tar, or is damaged after the entries so far.
        OSError: it cannot be read.
    """
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as archive:
            before = -1
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # saves memory
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
    except Exception as error:  # a damaged header can make tarfile raise any exception
        raise tarfile.ReadError(f"{type(error).__name__}: {error}") from error


def _why_unreadable(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file"
    if member.issym() or member.islnk():
        return "a link"
    return "" if member.isreg() else "not a file"


def _check_end(archive: tarfile.TarFile) -> None:
    """Check that the archive ends here, because tarfile mistakes a damaged header for the end."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {archive.offset}")


def read_entry(file: IO[bytes], entry: TarEntry) -> bytes:
    """Return the bytes of a member of the open tar `file`.

    Raises:
        tarfile.TarError: it is not a file, is larger than `MAX_MEMBER`, or is truncated.
    """
    if entry.wrong:
        raise tarfile.ReadError(f"{entry.name}: {entry.wrong}")
    if entry.size > MAX_MEMBER:
        raise tarfile.ReadError(f"{entry.name}: {entry.size} bytes are over {MAX_MEMBER}")
    file.seek(entry.offset)
    data = file.read(entry.size)
    if len(data) < entry.size:
        raise tarfile.ReadError(f"{entry.name}: truncated")
    return data


def sample_entries(file: IO[bytes]) -> Iterator[tuple[str, dict[str, TarEntry]]]:
    """Yield the samples of a WebDataset tar in order: the key, and the members by extension in
    lower case.

    Raises:
        tarfile.TarError, OSError: see `tar_entries`; samples before damage are yielded first.
    """
    key, files = "", dict[str, TarEntry]()
    damage: tarfile.TarError | None = None
    entries = tar_entries(file)
    while True:
        try:
            entry = next(entries, None)
        except tarfile.TarError as error:
            entry, damage = None, error
        if entry is None:
            break
        folder, slash, base = entry.name.rpartition("/")
        name, _, extension = base.partition(".")
        name = folder + slash + name
        if name != key and files:
            yield key, files
            files = {}
        key = name
        files.setdefault(extension.lower(), entry)
    if files:
        yield key, files
    if damage is not None:
        raise damage

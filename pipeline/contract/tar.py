"""Reader of tar archives of samples and originals, for both packages.

It finds the samples without reading their bytes, some ten times faster per member than the
standard library's tarfile. It supports what WebDataset writers produce: regular files in ustar, GNU
long names, and pax paths and sizes. It skips links, folders and devices. It refuses archives
without an end-of-archive block, which are truncated, and archives that two readers could interpret
differently.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

BLOCK = 512
_CHUNK = 1 << 16
"""Read-ahead in bytes, for fewer system calls while members are small."""
_REGULAR = frozenset({b"0", b"\0", b"7"})
_WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Links, devices, folders, FIFOs: no data follows their header, even if it states a size."""
_SPARSE = frozenset({b"S", b"M"})
"""Sparse and multi-volume files."""
_MAX_EXTENDED = 1 << 20
"""Maximum size in bytes of a pax header or a GNU long name."""
_MAX_MEMBERS = 100
"""Maximum number of members per sample."""
_OCTAL = re.compile(rb"[0-7]*")
_META_NAME = re.compile(r"__[^/]*__($|/)")
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")


class DamagedTar(tarfile.TarError):
    """Not a complete tar archive."""


class Hash(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class Extent:
    """The position of a member's bytes in the tar."""

    offset: int
    size: int


@dataclass
class TarSample:
    """The members with the same key: `members` by their extension, without the dot."""

    key: str
    members: dict[str, Extent] = field(default_factory=dict)


Pread = Callable[[int, int], bytes]
"""(size, offset) → the bytes there; fewer at the end of the file."""


@dataclass
class _Extended:
    """Name and size of a member in preceding headers, which override its own header."""

    name: str = ""
    size: int | None = None


def members(
    pread: Pread, end: int, check: bool = True, ahead: int = _CHUNK, digest: Hash | None = None
) -> Iterator[tuple[str, Extent]]:
    """Yield name and extent of each regular file in the tar of `end` bytes.

    Args:
        check: verify header checksums.
        ahead: bytes to read at each header that was not read yet.
        digest: receives all headers, and the names in extended ones.

    Raises:
        DamagedTar: a header is invalid, a member extends beyond the tar, or the end-of-archive
            block is missing.
    """
    offset, extended = 0, _Extended()
    start, chunk = 0, b""
    while True:
        if offset + BLOCK > start + len(chunk) or offset < start:
            start, chunk = offset, pread(ahead, offset)
        header = chunk[offset - start : offset - start + BLOCK]
        if len(header) < BLOCK:
            raise DamagedTar(f"no end-of-archive block at byte {offset}")
        if not header.strip(b"\0"):
            return
        if check:
            _check(header, offset)
        if digest is not None:
            digest.update(header)
        kind, size = header[156:157], _number(header[124:136])
        is_more = kind in (b"L", b"x")
        if extended.size is not None and not is_more:
            size = extended.size
        data = Extent(offset + BLOCK, 0 if kind in _WITHOUT_DATA else size)
        if data.offset + data.size > end:
            raise DamagedTar(
                f"no end-of-archive block: the member at byte {offset} ends after the archive"
            )
        if kind in _SPARSE:
            raise DamagedTar(f"the member at byte {offset} is a file in pieces")
        if is_more or kind in (b"K", b"g"):
            _extend(extended, kind, pread, data)
            if digest is not None:
                digest.update(extended.name.encode())
        else:
            if kind in _REGULAR:
                name = extended.name or _name(header)
                if not name:
                    raise DamagedTar(f"the member at byte {offset} has no name")
                if not (kind == b"\0" and name.endswith("/")):  # an old way to store a folder
                    yield name, data
            extended = _Extended()
        offset = data.offset + (data.size + BLOCK - 1) // BLOCK * BLOCK


def split_name(name: str) -> tuple[str, str] | None:
    """Return the key and the extension of a member's name, as webdataset does: the path up to the
    first dot of the file name, and the rest in lower case.

    None if the member belongs to no sample: its name has no dot, it is metadata (`__NAME__`), a
    hidden file (such as `._NAME` of macOS), or in a folder `__MACOSX`.
    """
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    if dot <= start:  # no dot, or a hidden file
        return None
    if "__" in name and (_META_NAME.match(name) or "__MACOSX" in name.split("/")):
        return None
    return name[:dot], name[dot + 1 :].lower()


def group_samples(
    found: Iterable[tuple[str, Extent]], most: int | None = None
) -> Iterator[TarSample]:
    """Yield the samples of the members of a WebDataset tar: consecutive ones with the same key.

    Raises:
        DamagedTar: a sample has a member twice or too many members, a key occurs again after other
            samples, or there are more than `most` samples.
    """
    sample: TarSample | None = None
    keys: set[str] = set()
    for name, extent in found:
        parts = split_name(name)
        if parts is None:
            continue
        key, extension = parts
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            if key in keys:
                raise DamagedTar(
                    f"the key {key!r} occurs again after other samples ({name!r}); the members of "
                    "a sample must be next to each other, and keys must be unique"
                )
            if len(keys) == most:
                raise DamagedTar(f"more than {most} samples")
            keys.add(key)
            sample = TarSample(key)
        if extension in sample.members:
            raise DamagedTar(f"{name!r} occurs twice")
        if len(sample.members) == _MAX_MEMBERS:
            raise DamagedTar(f"{key!r} has more than {_MAX_MEMBERS} members")
        sample.members[extension] = extent
    if sample is not None:
        yield sample


def samples(
    pread: Pread, end: int, check: bool = True, most: int | None = None,
    digest: Hash | None = None,
) -> list[TarSample]:  # fmt: skip
    """Return the samples of a WebDataset tar of `end` bytes, see `split_name`.

    Raises:
        DamagedTar: as in `members` and `group_samples`.
    """
    return list(group_samples(members(pread, end, check, digest=digest), most))


def _check(header: bytes, offset: int) -> None:
    unsigned = sum(header) - sum(header[148:156]) + 8 * 32
    if unsigned != _number(header[148:156]):
        raise DamagedTar(f"wrong header checksum at byte {offset}")


def _number(digits: bytes) -> int:
    if digits[0] & 0x80:  # GNU's base-256 form, for sizes from 8 GB
        if digits[0] & 0x40:
            raise DamagedTar(f"a negative number in a header: {digits!r}")
        return int.from_bytes(digits, "big") & ((1 << (8 * len(digits) - 1)) - 1)
    text = digits.rstrip(b"\0 ").lstrip(b" ")  # readers disagree on digits after a zero byte
    if not _OCTAL.fullmatch(text):
        raise DamagedTar(f"not a number in a header: {digits!r}")
    return int(text or b"0", 8)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DamagedTar(f"a name that is not UTF-8: {data[:80]!r}") from None


def _name(header: bytes) -> str:
    name = _text(header[:100].split(b"\0", 1)[0])
    prefix = _text(header[345:500].split(b"\0", 1)[0]) if header[257:262] == b"ustar" else ""
    return f"{prefix}/{name}" if prefix else name


def _extend(extended: _Extended, kind: bytes, pread: Pread, data: Extent) -> None:
    """Read what a header's data states about the following member."""
    if data.size > _MAX_EXTENDED:
        raise DamagedTar(f"a name of {data.size} bytes at byte {data.offset}")
    if kind == b"K":  # the target of a link
        return
    content = pread(data.size, data.offset)
    if kind == b"L":
        extended.name = _text(content.split(b"\0", 1)[0])
        return
    records = _pax_records(content)
    if kind == b"g":  # it would apply to all members, which other readers treat differently
        if records.keys() & {b"path", b"size"}:
            raise DamagedTar("a pax header that names all members alike")
        return
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise DamagedTar(f"a file in pieces at byte {data.offset}")
    extended.name = _text(records.get(b"path", b"")) or extended.name
    if b"size" in records:
        size = records[b"size"]
        if not (size.isdigit() and len(size) < 20):
            raise DamagedTar(f"not a size in a pax header: {size[:80]!r}")
        extended.size = int(size)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax header: `LENGTH KEY=VALUE` and a newline each, length included."""
    found: dict[bytes, bytes] = {}
    data, start = data.rstrip(b"\0"), 0
    while start < len(data):
        length = _PAX_LENGTH.match(data, start)
        end = start + int(length[1]) if length else 0
        key, equals, value = data[length.end() if length else end : end].partition(b"=")
        if end > len(data) or not equals or not key or not value.endswith(b"\n"):
            raise DamagedTar(f"not a pax header: {data[start : start + 80]!r}")
        found[key], start = value[:-1], end
    return found


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the key of each sample of a WebDataset tar, and its members' bytes by extension.

    Raises:
        DamagedTar: as in `samples`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:

        def pread(size: int, offset: int) -> bytes:
            return os.pread(file.fileno(), size, offset)

        for sample in samples(pread, os.fstat(file.fileno()).st_size):
            yield (
                sample.key,
                {
                    extension: pread(extent.size, extent.offset)
                    for extension, extent in sample.members.items()
                },
            )

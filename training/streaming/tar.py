"""Finding the samples in a tar without reading their bytes.

The standard library's tarfile costs some ten times more a member. Understood is what WebDataset
writers produce: plain files in ustar, GNU long names and pax paths. An archive without its
end-of-archive block was cut short and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 512
_CHUNK = 1 << 16
"""Read at once while the members are small: fewer calls."""
_REGULAR = frozenset({b"0", b"\0", b"7"})


class DamagedTar(Exception):
    """Not a whole tar archive."""


@dataclass(frozen=True)
class Extent:
    """Where a member's bytes are in the tar."""

    offset: int
    size: int


@dataclass
class Sample:
    """The members that share a key: `members` by their ending, without the dot."""

    key: str
    members: dict[str, Extent] = field(default_factory=dict)


Pread = Callable[[int, int], bytes]
"""(size, offset) → the bytes there; fewer at the end of the file."""


def members(pread: Pread, check: bool = True) -> Iterator[tuple[str, Extent]]:
    """Name and extent of each plain file in the tar; `check` its headers' checksums.

    Raises:
        DamagedTar: a header is wrong or the end-of-archive block is missing.
    """
    offset, long_name = 0, ""
    start, chunk = 0, b""
    while True:
        if offset + BLOCK > start + len(chunk) or offset < start:
            start, chunk = offset, pread(_CHUNK, offset)
        header = chunk[offset - start : offset - start + BLOCK]
        if len(header) < BLOCK:
            raise DamagedTar(f"no end-of-archive block at byte {offset}")
        if not header.strip(b"\0"):
            return
        if check:
            _check(header, offset)
        kind, size = header[156:157], _number(header[124:136])
        data = Extent(offset + BLOCK, size)
        offset = data.offset + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind == b"L":
            long_name = pread(size, data.offset).rstrip(b"\0").decode()
        elif kind == b"x":
            long_name = _pax_path(pread(size, data.offset)) or long_name
        elif kind in _REGULAR:
            yield long_name or _name(header), data
            long_name = ""
        else:
            long_name = ""


def samples(pread: Pread, check: bool = True) -> list[Sample]:
    """The samples of a WebDataset tar: consecutive members with the same key.

    The key is the path up to the first dot of the file's name, the rest is the ending.

    Raises:
        DamagedTar: as `members`.
    """
    found: list[Sample] = []
    for name, extent in members(pread, check):
        folder, slash, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        key = folder + slash + stem if stem else name
        if not found or found[-1].key != key:
            found.append(Sample(key))
        found[-1].members[ending.lower()] = extent
    return found


def _check(header: bytes, offset: int) -> None:
    unsigned = sum(header) - sum(header[148:156]) + 8 * 32
    if unsigned != _number(header[148:156]):
        raise DamagedTar(f"wrong header checksum at byte {offset}")


def _number(digits: bytes) -> int:
    if digits[0] & 0x80:  # GNU's base-256 form, for sizes from 8 GB
        return int.from_bytes(digits, "big") & ((1 << (8 * len(digits) - 1)) - 1)
    text = digits.strip(b"\0 ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise DamagedTar(f"not a number in a header: {digits!r}") from None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0].decode()
    prefix = header[345:500].split(b"\0", 1)[0].decode() if header[257:262] == b"ustar" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_path(data: bytes) -> str:
    path = ""
    while data:
        length, _, _ = data.partition(b" ")
        record, data = data[: int(length)], data[int(length) :]
        key, _, value = record[len(length) + 1 :].partition(b"=")
        if key == b"path":
            path = value.rstrip(b"\n").decode()
    return path

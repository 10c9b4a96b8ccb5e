"""Opens untrusted zip archives, whatever the encoding of their names."""

from __future__ import annotations

import lzma
import mmap
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

from pipeline.reading import open_regular

BROKEN_ARCHIVE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Exceptions for an archive that is damaged, encrypted, or has an unknown compression."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
        BROKEN_ARCHIVE: it is not a zip archive.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            return zipfile.ZipFile(path)
        except UnicodeDecodeError:
            return zipfile.ZipFile(cast(IO[bytes], _PatchedZip.of(file)))


class _PatchedZip(mmap.mmap):
    """A zip with the UTF-8 flag cleared for names that are not UTF-8, so that they are decoded as
    cp437, which accepts any bytes. The file itself is not changed."""

    _END, _ENTRY = b"PK\5\6", b"PK\1\2"

    @classmethod
    def of(cls, file: IO[bytes]) -> _PatchedZip:
        data = cls(file.fileno(), 0, access=mmap.ACCESS_COPY)
        end = data.rfind(cls._END)
        (size,) = struct.unpack_from("<I", data, end + 12)
        place = max(0, end - size)
        while data[place : place + 4] == cls._ENTRY:
            (flags,) = struct.unpack_from("<H", data, place + 8)
            name, extra, comment = struct.unpack_from("<HHH", data, place + 28)
            try:
                data[place + 46 : place + 46 + name].decode()
            except UnicodeDecodeError:
                (local,) = struct.unpack_from("<I", data, place + 42)
                struct.pack_into("<H", data, place + 8, flags & ~0x800)
                struct.pack_into("<H", data, local + 6, flags & ~0x800)
            place += 46 + name + extra + comment
        return data

    def seekable(self) -> bool:
        return True

"""The files in folders, zips and tars, read one at a time; nothing is extracted to the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from pipeline.imaging.limits import ImageError
from pipeline.importers.items import is_file, read_file, read_most
from pipeline.importers.tolerant_tar import TarEntry, tar_entries
from pipeline.web.local_files import file_url
from pipeline.web.zips import BROKEN_ARCHIVE

_MAX_RATIO = 100
_FREE_BYTES = 256 << 20
"""All files of an archive may together unpack to `_MAX_RATIO` times its size plus this many bytes;
images hardly compress."""
_CHUNK = 1 << 20
UNPACKERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    ".xz": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),  # noqa: SIM115
}
BROKEN_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""Exceptions for a compressed file that is damaged or ends early."""


class Member(Protocol):
    """A file of a dataset. `read` raises `ImageError` or `OSError`, see `ImportedImage`."""

    @property
    def url(self) -> str: ...
    @property
    def size(self) -> int: ...
    def read(self, most: int) -> bytes: ...
    def open(self) -> IO[bytes]:
        """Open the file as a stream that need not be seekable.

        Raises:
            ImageError, OSError: as in `read`.
        """


@dataclass(frozen=True, slots=True)
class FolderMember:
    """A file in a folder."""

    path: Path

    @property
    def url(self) -> str:
        return file_url(self.path)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, most: int) -> bytes:
        self._check()
        return read_file(self.path, most)

    def open(self) -> IO[bytes]:
        self._check()
        return self.path.open("rb")

    def _check(self) -> None:
        if not is_file(self.path):
            raise ImageError("wrong_type", "not a file")


class Budget:
    """The bytes to which an archive of `size` bytes may unpack."""

    def __init__(self, size: int) -> None:
        self._left = _MAX_RATIO * size + _FREE_BYTES
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Count bytes that are unpacked.

        Raises:
            ImageError: the archive unpacks to more.
        """
        with self._lock:
            if count > self._left:
                raise ImageError(
                    "too_large", f"the archive unpacks to more than {_MAX_RATIO} times its size"
                )
            self._left -= count


@dataclass(frozen=True, slots=True)
class Archive:
    """An open zip or tar. `url` and `prefix` locate its members: URL#PREFIX/MEMBER."""

    path: Path
    prefix: str
    budget: Budget

    def url_of(self, name: str) -> str:
        return file_url(self.path, self.prefix + name)


@dataclass(frozen=True)
class SampleTar:
    """A WebDataset tar: a file on the disk, or a temporary one that is open as `file`."""

    archive: Archive
    file: IO[bytes] | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        if self.file is not None:
            yield self.file
            return
        with self.archive.path.open("rb") as file:
            yield file


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip."""

    archive: Archive
    zip: zipfile.ZipFile
    info: zipfile.ZipInfo

    @property
    def url(self) -> str:
        return self.archive.url_of(self.info.filename)

    @property
    def size(self) -> int:
        return self.info.file_size

    def read(self, most: int) -> bytes:
        if self.size > most:
            raise ImageError("too_large", f"unpacks to {self.size} bytes, over {most}")
        with self.open() as file:
            try:
                return read_most(file, most)
            except BROKEN_ARCHIVE as error:
                raise ImageError("damaged", f"{type(error).__name__}: {error}") from None

    def open(self) -> IO[bytes]:
        if self.info.flag_bits & 1:
            raise ImageError("damaged", "encrypted")
        if stat.S_ISLNK(self.info.external_attr >> 16):
            raise ImageError("wrong_type", "a symbolic link")
        self.archive.budget.take(self.size)
        try:
            return self.zip.open(self.info)
        except BROKEN_ARCHIVE as error:
            raise ImageError("damaged", f"{type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an uncompressed tar, which is open as `file`."""

    archive: Archive
    file: IO[bytes]
    entry: TarEntry

    @property
    def url(self) -> str:
        return self.archive.url_of(self.entry.name)

    @property
    def size(self) -> int:
        return self.entry.size

    def read(self, most: int) -> bytes:
        self._check()
        if self.size > most:
            raise ImageError("too_large", f"{self.size} bytes, over {most}")
        data = os.pread(self.file.fileno(), self.size, self.entry.offset)
        if len(data) < self.size:
            raise ImageError("damaged", f"{self.entry.name}: truncated")
        return data

    def open(self) -> IO[bytes]:
        self._check()
        return spool(self._chunks())

    def _check(self) -> None:
        if self.entry.wrong:
            raise ImageError("wrong_type", self.entry.wrong)

    def _chunks(self) -> Iterator[bytes]:
        place, end = self.entry.offset, self.entry.offset + self.size
        while place < end:
            data = os.pread(self.file.fileno(), min(_CHUNK, end - place), place)
            if not data:
                raise ImageError("damaged", f"{self.entry.name}: truncated")
            yield data
            place += len(data)


def spool(chunks: Iterator[bytes]) -> IO[bytes]:
    """Copy a stream to a temporary file, which disappears with its last reader."""
    file = cast(IO[bytes], tempfile.TemporaryFile(prefix="shellgan-"))  # noqa: SIM115
    try:
        for chunk in chunks:
            file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def unpack(member: Member, suffix: str, budget: Budget) -> IO[bytes]:
    """Return the content of a file, unpacked if `suffix` is one of `UNPACKERS`, as a seekable
    file.

    Raises:
        ImageError: it is damaged or unpacks to too much.
        OSError: it cannot be read.
    """
    packed = member.open()
    if suffix not in UNPACKERS and isinstance(member, FolderMember):
        return packed

    def chunks() -> Iterator[bytes]:
        with packed:
            file = UNPACKERS[suffix](packed) if suffix in UNPACKERS else packed
            while True:
                try:
                    data = file.read(_CHUNK)
                except (*BROKEN_STREAM, *BROKEN_ARCHIVE) as error:
                    raise ImageError("damaged", f"{type(error).__name__}: {error}") from None
                if not data:
                    return
                if suffix in UNPACKERS:
                    budget.take(len(data))
                yield data

    return spool(chunks())


def zip_members(archive: Archive, opened: zipfile.ZipFile) -> Iterator[tuple[str, Member]]:
    """Yield the files of a zip by name, with `/` for each backslash. If several have the same name,
    the last one counts, as in every unzip program."""
    for info in opened.infolist():
        if not info.is_dir():
            yield info.filename.replace("\\", "/"), ZipMember(archive, opened, info)


def tar_members(archive: Archive, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    """Yield the files of an uncompressed tar by name.

    Raises:
        tarfile.TarError: it is damaged after the files so far.
    """
    for entry in tar_entries(file):
        yield entry.name, TarMember(archive, file, entry)


BROKEN_TAR = (tarfile.TarError, OSError)

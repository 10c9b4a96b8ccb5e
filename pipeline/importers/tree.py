"""The files of a dataset: a folder, an archive or one file. Archives in it count as folders."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.contract import UserError
from pipeline.errors import Failure
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import IMAGE_SUFFIXES, STAGE, is_file
from pipeline.importers.members import (
    BROKEN_TAR,
    UNPACKERS,
    Archive,
    Budget,
    FolderMember,
    Member,
    SampleTar,
    tar_members,
    unpack,
    zip_members,
)
from pipeline.importers.tolerant_tar import sample_entries
from pipeline.units import count_of
from pipeline.web.failures import failure
from pipeline.web.zips import BROKEN_ARCHIVE, open_zip

_MAX_DEPTH = 2
"""Archives in archives of the dataset are opened, deeper ones are not."""
_PEEK = 200
_SAMPLE_PARTS = frozenset({"json", "cls", "txt"})
_TAR_SUFFIXES = (".tar", ".tgz", *(f".tar{suffix}" for suffix in UNPACKERS))


class Tree:
    """The files of the dataset at `path`.

    `files` maps names (relative paths with slashes) to files, in sorted order. `samples` are
    WebDataset tars; their members are not in `files`. `problems` are the failures of archives that
    could not be opened or end early. Files that operating systems add (`is_system_file`) are left
    out.

    Args:
        unpack_tars: treat tars as folders (True) or as WebDataset tars (False); None: as they are.

    Raises:
        UserError: `path` is a damaged archive.
    """

    def __init__(self, path: Path, unpack_tars: bool | None = None) -> None:
        self.path = path
        self.problems: list[Failure] = []
        self.samples: list[SampleTar] = []
        self.single = ""
        """The name of the file if the dataset is a single file; the other files of its folder can
        be read too, with `beside`."""
        self._unpack_tars = unpack_tars
        self._open_files = ExitStack()
        with ExitStack() as stack:
            stack.callback(self.close)
            self.files = dict(sorted(self._all_files().items()))
            stack.pop_all()
        self._images = [name for name in self.files if is_image(name)]

    def close(self) -> None:
        """Close the archives, and the files of `keep_open`."""
        self._open_files.close()

    @property
    def images(self) -> Iterator[str]:
        """The names of the files with an image's extension."""
        return iter(self._images)

    def find(self, *names: str) -> str:
        """Return the first file with one of these base names, in any case; empty if there is
        none."""
        wanted = {name.casefold() for name in names}
        return next((name for name in self.files if base_name(name).casefold() in wanted), "")

    def beside(self, *names: str) -> tuple[str, Member] | None:
        """Return a file with one of these base names, from the dataset or, if the dataset is a
        file, from its folder."""
        if name := self.find(*names):
            return name, self.files[name]
        if self.path.is_file():
            for one in names:
                if is_file(self.path.with_name(one)):
                    return one, FolderMember(self.path.with_name(one))
        return None

    def sibling(self, *names: str) -> Tree | None:
        """Return the files of the first of these archives in the folder of the dataset, if this is
        a file; it is closed with this tree."""
        for name in names if self.path.is_file() else ():
            path = self.path.with_name(name)
            if is_file(path) and path != self.path:
                with suppress(UserError):
                    return self._open_files.enter_context(closing(Tree(path)))
        return None

    def read(self, name: str, most: int) -> bytes:
        return self.files[name].read(most)

    def open(self, name: str) -> IO[bytes]:
        """Open a file, unpacked if it is compressed (.gz, .bz2, .xz), as a seekable file.

        Raises:
            ImageError, OSError: it cannot be read.
        """
        member = self.files[name]
        return unpack(member, PurePosixPath(name).suffix.lower(), Budget(member.size))

    def keep_open(self, name: str) -> IO[bytes]:
        """Open a file like `open`, until the tree is closed."""
        return self._open_files.enter_context(self.open(name))

    def _all_files(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        if self.path.is_dir():
            for name, member in _folder_members(self.path):
                found |= self._opened(name, member, 0) or {name: member}
            return found
        inside = self._opened("", FolderMember(self.path), -1)
        if inside is None:
            self.single = self.path.name
            return {self.single: FolderMember(self.path)}
        if not inside and self.problems:
            raise UserError(f"{self.path}: {self.problems[0].detail}")
        return inside

    def _opened(self, name: str, member: Member, depth: int) -> dict[str, Member] | None:
        """Return the files in an archive, by their names below its folder; None if the file is
        not an archive that is opened."""
        kind = _archive_kind(name or self.path.name)
        if not kind or depth >= _MAX_DEPTH or self._is_unpacked_already(name):
            return None
        found: dict[str, Member] = {}
        folder = f"{_without_suffix(name)}/" if name else ""
        try:
            for inner, one in self._inside(kind, name, member):
                if not is_system_file(inner):
                    found |= self._opened(folder + inner, one, depth + 1) or {folder + inner: one}
        except ImageError as error:
            self._fail(member, error.kind, error.detail)
        except (*BROKEN_TAR, *BROKEN_ARCHIVE) as error:
            self._fail(member, "damaged", f"cannot be read as a {kind} file ({error})")
        return found

    def _inside(self, kind: str, name: str, member: Member) -> Iterator[tuple[str, Member]]:
        is_outer = isinstance(member, FolderMember)
        place = member.path if isinstance(member, FolderMember) else self.path
        archive = Archive(place, "" if is_outer else f"{name}/", Budget(member.size))
        if kind == "zip":
            opened = open_zip(place) if is_outer else self._inner_zip(member, archive.budget)
            yield from zip_members(archive, self._open_files.enter_context(opened))
            return
        suffix = PurePosixPath(name or self.path.name).suffix.lower()
        file = unpack(member, ".gz" if suffix == ".tgz" else suffix, archive.budget)
        is_samples = self._unpack_tars is False
        if is_samples or (self._unpack_tars is None and _is_webdataset(file)):
            if is_outer and suffix == ".tar":  # opened when it is read
                file.close()
                self.samples.append(SampleTar(archive))
            else:
                self.samples.append(SampleTar(archive, self._open_files.enter_context(file)))
            return
        self._open_files.enter_context(file)
        yield from tar_members(archive, file)

    def _inner_zip(self, member: Member, budget: Budget) -> zipfile.ZipFile:
        return zipfile.ZipFile(self._open_files.enter_context(unpack(member, "", budget)))

    def _is_unpacked_already(self, name: str) -> bool:
        """Return True if the folder has a folder with the name of this archive, or the tar of
        several gzipped ones."""
        return bool(name) and self.path.is_dir() and (self.path / _without_suffix(name)).is_dir()

    def _fail(self, member: Member, kind: str, detail: str) -> None:
        self.problems.append(failure(STAGE, member.url, kind, detail=detail))


def _folder_members(path: Path) -> Iterator[tuple[str, Member]]:
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        for name in names:
            file = Path(folder, name)
            if not is_system_file(name) and (is_image(name) or is_file(file)):
                yield file.relative_to(path).as_posix(), FolderMember(file)


def _is_webdataset(file: IO[bytes]) -> bool:
    """Return True if the samples of a tar have metadata beside their images, or its images are in
    no folder; also if nothing in it can be read, because that reader says why."""
    count = 0
    with suppress(*BROKEN_TAR):
        for key, parts in islice(sample_entries(file), _PEEK):
            count += 1
            has_image = any(is_image(f"x.{extension}") for extension in parts)
            if has_image and ("/" not in key.removeprefix("./") or parts.keys() & _SAMPLE_PARTS):
                return True
    return not count


def is_image(name: str) -> bool:
    """Return True if a file has an image's extension."""
    stem, dot, suffix = base_name(name).rpartition(".")
    return bool(stem) and dot + suffix.casefold() in IMAGE_SUFFIXES


def is_system_file(name: str) -> bool:
    """Return True for what operating systems add to folders and archives: AppleDouble files,
    .DS_Store, Thumbs.db."""
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in _SYSTEM_FILES


_SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def base_name(name: str) -> str:
    return name.rpartition("/")[2]


def _archive_kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".zip"):
        return "zip"
    return "tar" if lower.endswith(_TAR_SUFFIXES) else ""


def _without_suffix(name: str) -> str:
    lower = name.lower()
    for suffix in (".zip", *sorted(_TAR_SUFFIXES, key=len, reverse=True)):
        if lower.endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_tree(path: Path, unpack_tars: bool | None = None) -> Tree:
    """Return the files of a dataset.

    Raises:
        UserError: the path does not exist or is not a file or folder, or is a damaged archive.
    """
    if not (path.is_dir() or path.is_file()):
        there = path.exists()
        raise UserError(
            f"{path}: " + ("not a file or folder" if there else "file or folder does not exist")
        )
    return Tree(path, unpack_tars)


def describe_files(tree: Tree, names: Sequence[str], output: str, other: str) -> str:
    """Return what was found in one line, with the number of files; empty if there is none.

    Args:
        output: name of the output format of img2dataset that the files have, if that tool wrote
            them, which its statistics show; `other` describes the files of other tools.
    """
    if not names:
        return ""
    stats = any(name.endswith("_stats.json") for name in tree.files)
    kind = f"img2dataset output ({output})" if stats else other
    return f"{kind}: {count_of(len(names), 'file')}"

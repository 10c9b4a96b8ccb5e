"""Images that are already on this machine, in folders and in zip archives."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.sources.interface import Adapter, Found, Limits, Page, PageRequest, PageResult
from pipeline.sources.picks import Pattern
from pipeline.sources.url_rules import admitted
from pipeline.typed import STRICT
from pipeline.web.local_files import LocalFiles, file_path, file_url

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .jp2 .heic .heif".split()  # noqa: SIM905
)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FolderSource(Limits):
    """Folders or zip archives of images; an image's labels are the sub-folders it lies in.

    Archives in a folder are opened like folders. Hidden files are left out. Patterns are searched
    for in file: URLs. Paths are relative to the folder the command runs in.
    """

    kind: Literal["folder"] = "folder"
    start: tuple[Path, ...] = Field(min_length=1)
    license: str = ""
    attribution: str = ""
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


def local_files(source: Limits, max_bytes: int) -> LocalFiles | None:
    """What reads the images of a folder source; None for any other, whose file: URLs stay shut."""
    return LocalFiles(source.start, max_bytes) if isinstance(source, FolderSource) else None


def start(config: FolderSource) -> list[PageRequest]:
    """The folders and archives themselves.

    Raises:
        UserError: one of them is not there.
    """
    for path in config.start:
        if not path.exists():
            raise UserError(f"{path}: no such folder or archive")
    return [PageRequest(file_url(path.resolve())) for path in config.start]


def parse(config: FolderSource, page: Page) -> PageResult:
    """The images in one folder or archive, and its sub-folders and archives."""
    path, _ = file_path(page.request.url)
    labels = tuple(page.request.context.get("labels", ()))
    try:
        if path.is_dir():
            return _folder(config, page.request, path, labels)
        return _archive(config, path, labels)
    except (OSError, zipfile.BadZipFile) as error:
        return PageResult(problem=f"{type(error).__name__}: {error}")


def _folder(
    config: FolderSource, request: PageRequest, path: Path, labels: tuple[str, ...]
) -> PageResult:
    names: list[str] = []
    follow: list[PageRequest] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            deeper = request.depth + 1
            if entry.is_dir():
                context = {"labels": [*labels, entry.name]}
                follow.append(PageRequest(file_url(path / entry.name), deeper, context))
            elif entry.name.lower().endswith(".zip"):
                context = {"labels": list(labels)}
                follow.append(PageRequest(file_url(path / entry.name), deeper, context))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a name
                names.append(entry.name)
    names.sort()
    follow.sort(key=lambda one: one.url)
    rows = (_found(config, file_url(path / name), name, labels) for name in names)
    return PageResult(filter(None, rows), follow)


def _archive(config: FolderSource, path: Path, labels: tuple[str, ...]) -> PageResult:
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())

    def rows() -> Iterator[Found | None]:
        for name in names:
            member = PurePosixPath(name)
            hidden = any(part.startswith((".", "__MACOSX")) for part in member.parts)
            if not hidden and member.suffix.lower() in SUFFIXES:
                inside = tuple(member.parts[:-1])
                yield _found(config, file_url(path, name), member.name, labels + inside)

    return PageResult(filter(None, rows()))


def _found(config: FolderSource, url: str, name: str, labels: tuple[str, ...]) -> Found | None:
    if not admitted(url, config.include, config.exclude):
        return None
    return Found(url, PurePosixPath(name).stem, labels, config.license, config.attribution)


FOLDER = Adapter(FolderSource, start, parse)

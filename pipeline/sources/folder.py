"""Local images in folders and zip archives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.errors import UserError
from pipeline.sources.interface import (
    Adapter,
    CrawlLimits,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.text_selectors import Pattern, clean
from pipeline.sources.url_rules import is_allowed
from pipeline.web.local_files import LocalFileReader, argument_path, file_path, file_url
from pipeline.web.zips import BROKEN_ARCHIVE, open_zip

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .jp2 .heic .heif".split()  # noqa: SIM905
)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FolderSource(CrawlLimits):
    """Folders or zip archives of images; the sub-folders of an image are its labels.

    `start` are the folders and archives, which are treated like folders; paths are relative to the
    current folder. `license` and `attribution` are those of all images. Hidden files are skipped,
    and so are symbolic links that lead out of the folders of `start`, unless `allow_outside_links`
    is true. Patterns are applied to file: URLs: one of `include` and none of `exclude` must match.
    """

    kind: Literal["folder"] = "folder"
    start: tuple[Path, ...] = ()
    license: str = ""
    attribution: str = ""
    allow_outside_links: bool = False
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


def local_files(source: CrawlLimits, max_bytes: int) -> LocalFileReader | None:
    """Return the reader of file: URLs for a folder source; None for other sources, which must not
    read them."""
    if not isinstance(source, FolderSource):
        return None
    return LocalFileReader(source.start, max_bytes, source.allow_outside_links)


def start(config: FolderSource) -> list[PageRequest]:
    """Return requests for the folders and archives.

    Raises:
        UserError: there is none, or one of them does not exist.
    """
    if not config.start:
        raise UserError(
            "source.start: missing; name what to crawl in [source] of the recipe (only a recipe "
            "for images that are imported needs none)"
        )
    paths = [argument_path(path, "folder or archive does not exist") for path in config.start]
    for path in paths:
        if not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: neither a folder nor a zip archive")
    return [PageRequest(file_url(path.resolve())) for path in paths]


def parse(config: FolderSource, page: Page) -> PageResult:
    """Return the images in one folder or archive, and its sub-folders and archives."""
    path, _ = file_path(page.request.url)
    labels = tuple(page.request.context.get("labels", ()))
    try:
        if path.is_dir():
            return _folder(config, page.request, path, labels)
        return _archive(config, path, labels)
    except (OSError, *BROKEN_ARCHIVE) as error:
        return PageResult(error=f"{type(error).__name__}: {error}")


def _folder(
    config: FolderSource, request: PageRequest, path: Path, labels: tuple[str, ...]
) -> PageResult:
    names: list[str] = []
    follow: list[PageRequest] = []
    notes = Notes()
    with os.scandir(path) as entries:
        for entry in entries:
            is_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES  # noqa: PTH122 - a name
            is_archive = entry.name.lower().endswith(".zip")
            is_folder = _is_folder(entry)
            if entry.name.startswith(".") or not (is_image or is_archive or is_folder):
                continue
            reason, example = _why_not(config, path, entry, is_folder)
            if reason:
                notes.add(reason, example)
            elif is_folder:
                context = {"labels": [*labels, clean(entry.name)]}
                follow.append(PageRequest(file_url(path / entry.name), request.depth + 1, context))
            elif is_archive:
                context = {"labels": list(labels)}
                follow.append(PageRequest(file_url(path / entry.name), request.depth + 1, context))
            else:
                names.append(entry.name)
    names.sort()
    follow.sort(key=lambda one: one.url)
    rows = (_found(config, file_url(path / name), name, labels) for name in names)
    return PageResult(filter(None, rows), follow, notes)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def _why_not(
    config: FolderSource, folder: Path, entry: os.DirEntry[str], is_folder: bool
) -> tuple[str, str]:
    """Return why an entry is skipped, and a description; both are empty if it is not."""
    path = folder / entry.name
    if entry.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            return "broken_link", f"{path}: {getattr(error, 'strerror', None) or error}"
        roots = [root.resolve() for root in config.start]
        outside = not any(target.is_relative_to(root) for root in roots)
        if outside and not config.allow_outside_links:
            return "outside_link", f"{path} -> {target}"
        if is_folder and any(one.resolve() == target for one in (folder, *folder.parents)):
            return "link_loop", f"{path} -> {target}"
    if not is_folder and not path.is_file():
        return "not_a_file", str(path)
    return "", ""


def _archive(config: FolderSource, path: Path, labels: tuple[str, ...]) -> PageResult:
    with open_zip(path) as archive:
        names = sorted(archive.namelist())

    def rows() -> Iterator[FoundImage | None]:
        for name in names:
            member = PurePosixPath(name.replace("\\", "/").lstrip("/"))  # as unzip reads them
            hidden = any(part.startswith((".", "__MACOSX")) for part in member.parts)
            if not hidden and member.suffix.lower() in SUFFIXES:
                inside = tuple(map(clean, member.parts[:-1]))
                yield _found(config, file_url(path, name), member.name, labels + inside)

    return PageResult(filter(None, rows()))


def _found(config: FolderSource, url: str, name: str, labels: tuple[str, ...]) -> FoundImage | None:
    if not is_allowed(url, config.include, config.exclude):
        return None
    title = clean(PurePosixPath(name).stem)
    return FoundImage(url, title, labels, config.license, config.attribution)


FOLDER = Adapter(FolderSource, start, parse)

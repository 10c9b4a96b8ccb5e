"""A folder of files at a URL: S3, or any other file system that fsspec supports.

A part of the originals has the same files in the store as in the folder. Its summary is uploaded
last, so a part without one does not count. The plan, journal and summary also stay on this machine,
because planning, selecting and retrying read them; the local tar is removed once the store has it.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline.atomic_io import atomic_file
from pipeline.contract import DatasetPaths
from pipeline.credentials import fsspec_arguments
from pipeline.errors import UserError

_BLOCK, _CHUNK = 8 << 20, 1 << 20

READ_ONLY = frozenset({"http", "https", "data"})

_WITH_FOLDERS = frozenset(
    {"file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"}
)
"""Schemes whose folders must be created before their files, and whose files are visible before they
are complete."""

_UPLOAD_OPTIONS = {
    scheme: {"chunksize": 16 << 20, "max_concurrency": 2} for scheme in ("s3", "s3a")
}
"""fsspec options for large files; by default s3fs holds up to 500 MB of a file in memory."""

_TOKENS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated",
           "mtime", "created")  # fmt: skip
_PACKAGES = {"s3": "shellgan[s3]", "s3a": "shellgan[s3]"}


class StoreError(UserError):
    """A store does not respond or refuses a request; the message names the URL. The next run
    continues."""


class Store:
    """Files by their paths under `url`. Safe to use from several threads.

    fsspec and the provider's package read credentials and endpoints (for S3 from the environment:
    AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).

    Raises:
        UserError: the URL cannot be written, or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme = urlsplit(url).scheme
        if len(scheme) < 2 or scheme in READ_ONLY or "::" in url:
            raise UserError(f"{url}: give a URL that can be written, such as s3://bucket/folder")
        self._has_folders = scheme in _WITH_FOLDERS
        self._upload_options = _UPLOAD_OPTIONS.get(scheme, {})
        import fsspec

        url, options = fsspec_arguments(self.url)
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            package = _PACKAGES.get(scheme)
            hint = f"; pip install '{package}'" if package else ""
            raise UserError(f"{url}: {error}{hint}") from None
        except ValueError as error:
            raise UserError(f"{url}: {error}") from None

    def list(self, folder: str) -> dict[str, str]:
        """Return the files in `folder` by name, each with a token that changes when the file
        does."""
        path = self._path(folder)
        try:
            with self._wrap_errors(folder):
                self._files.invalidate_cache()
                found = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            PurePosixPath(one["name"]).name: f"{_token(one)} {one['size']}"
            for one in found
            if one["type"] == "file" and not one["name"].endswith(".tmp")
        }

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""
        try:
            with self._wrap_errors(name):
                self._files.invalidate_cache()
                return int(self._files.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes of a file, or those from `start` to before `end`.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        with self._wrap_errors(name):
            data: bytes = self._files.cat_file(self._path(name), start=start, end=end)
            return data

    def download(self, name: str, path: Path) -> None:
        """Download a file to `path`, which appears complete or not at all.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        with (
            atomic_file(path) as file,
            self._wrap_errors(name),
            self._files.open(self._path(name), "rb", block_size=_BLOCK) as stored,
        ):
            shutil.copyfileobj(stored, file, _CHUNK)

    def upload(self, path: Path, name: str) -> None:
        """Upload the file `path`; it appears in the store complete or not at all."""
        size = path.stat().st_size
        self._put(
            name, lambda target: self._files.put_file(str(path), target, **self._upload_options)
        )
        stored = self.size(name)
        if stored != size:
            raise StoreError(
                f"{self.url}/{name}: upload incomplete: the store has {stored} of {size} bytes; "
                "run the command again"
            )

    def write(self, name: str, data: bytes) -> None:
        """Upload `data` as a file, which appears complete or not at all."""
        self._put(name, lambda target: self._files.pipe_file(target, data))

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            with self._wrap_errors(name):
                self._files.rm_file(self._path(name))
        except FileNotFoundError:
            pass

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _put(self, name: str, put: Callable[[str], object]) -> None:
        target = self._path(name)
        try:
            with self._wrap_errors(name):
                if not self._has_folders:
                    put(target)
                    return
                folder, _, last = target.rpartition("/")
                self._files.makedirs(folder, exist_ok=True)
                aside = f"{folder}/.{last}.{os.getpid()}.tmp"
                put(aside)
                self._files.mv(aside, target)
        except FileNotFoundError as error:  # such as a bucket that does not exist
            raise StoreError(f"{self.url}/{name}: {error}") from None

    @contextmanager
    def _wrap_errors(self, name: str) -> Iterator[None]:
        """Convert any exception of a provider's client into one line with the URL."""
        try:
            yield
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"{self.url}/{name}: {words}") from error


def _token(info: dict[str, Any]) -> str:
    """Return a token of a file that changes when the file changes."""
    return next((str(info[name]) for name in _TOKENS if info.get(name)), "")


@functools.lru_cache(maxsize=8)
def open_store(url: str) -> Store:
    """Return the store at `url`; each process opens it once.

    Raises:
        UserError: see `Store`.
    """
    return Store(url)


def store_path(dataset: DatasetPaths, path: Path) -> str:
    """Return the path of a dataset's file in the store: its path below the project's folder."""
    return path.relative_to(dataset.root).as_posix()


def store_of(dataset: DatasetPaths) -> Store:
    """Return the store of a dataset that has one."""
    return open_store(dataset.store)


def upload_part(
    dataset: DatasetPaths, files: Sequence[Path], summary: Path, content: bytes
) -> None:
    """Upload the files of a finished part, then its summary with this content."""
    store = store_of(dataset)
    for path in files:
        store.upload(path, store_path(dataset, path))
    store.write(store_path(dataset, summary), content)


def read_range(dataset: DatasetPaths, tar: Path, start: int, end: int) -> bytes:
    """Return the bytes from `start` to before `end` of a tar in the store.

    Raises:
        FileNotFoundError: the store does not have it.
    """
    return store_of(dataset).read(store_path(dataset, tar), start, end)


def stored_tars(dataset: DatasetPaths) -> set[str]:
    """Return the names of the tars that the store has."""
    names = store_of(dataset).list(store_path(dataset, dataset.originals_dir))
    return {name for name in names if name.endswith(".tar")}

"""A disk cache with a hard limit for shards from URLs.

Everything counts: complete files, files being written (their full size, reserved before the first
byte), blocks rather than bytes. A file has no name until it is complete (`O_TMPFILE` if available),
so a kill leaves nothing behind; its name contains the expected hash, which is checked on opening
(`shards.open_verified`).
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.contract import (
    FileLock,
    ShardEntry,
    UserError,
    is_disk_full,
    local_path,
    lock,
    report_waiting,
)
from training.machine.disk import DiskFull
from training.streaming.fetch import FetchCancelled, fetch
from training.streaming.schemes import check_scheme
from training.streaming.shards import open_local

_BLOCK = 4096
_FOLDER = 4 * _BLOCK
"""Bytes for the folder itself and its lock."""


def disk_usage(size: int) -> int:
    """Return the disk usage of a file of `size` bytes."""
    return -(-size // _BLOCK) * _BLOCK


class ShardCache:
    """Opens shards by number, fetching those from URLs into `folder`; local files are opened in
    place.

    Args:
        limit: maximum disk usage of the cache in bytes.
        window: maximum number of shards that are open at a time.
        timeout: seconds, see `fetch`.

    Raises:
        UserError: the limit is too small for the window, a URL has a scheme that is not allowed, or
            another process uses the folder.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[ShardEntry],
        locations: Sequence[str],
        limit: int,
        window: int,
        timeout: float,
    ) -> None:
        self._folder, self._entries, self._locations = folder, entries, locations
        self._limit, self._timeout = limit - _FOLDER, timeout
        self._paths = [local_path(location) for location in locations]
        for location, path in zip(locations, self._paths, strict=True):
            if path is None:
                check_scheme(location)
        self._check_window(window)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{folder}: not a folder; use another --data.cache") from None
        self._lock_file = self._lock_folder()
        self._change = threading.Condition()
        try:
            self._held = self._take_over()  # name → disk usage, least recently used first
        except BaseException:
            self._lock_file.release()
            raise
        self._coming: dict[str, int] = {}
        self._retries: dict[str, str] = {}  # name → why its last connection was lost
        self._in_use: Counter[str] = Counter()
        self._awaited: set[str] = set()
        self._stop = threading.Event()

    def open(self, number: int) -> int:
        """Return a descriptor of the shard's bytes, which are not verified.

        Raises:
            UserError: it cannot be fetched.
            DiskFull: the disk is full before the limit is reached.
        """
        path = self._paths[number]
        if path is not None:
            return open_local(path)
        name = self._name(number)
        with report_waiting(self._locations[number], lambda: self._retries.get(name, "")):
            with self._change:
                while name in self._coming:
                    self._change.wait()
                if name in self._held:
                    return self._use(name, os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC))
                self._reserve(name, number, urgent=True)
            fd = self._fetch(name, number)
        with self._change:
            return self._use(name, fd)

    def prefetch(self, number: int) -> None:
        """Start fetching the shard, if that does not remove anything in use or expected soon."""
        name = self._name(number)
        with self._change:
            if self._paths[number] is not None or name in self._held or name in self._coming:
                return
            if not self._reserve(name, number, urgent=False):
                return
            self._awaited.add(name)
        threading.Thread(
            target=self._fetch_ahead, args=(name, number), name="prefetch", daemon=True
        ).start()

    def release(self, number: int) -> None:
        """Release the shard: its descriptor is closed, and its file may be removed."""
        if self._paths[number] is not None:
            return
        with self._change:
            self._in_use[self._name(number)] -= 1
            self._change.notify_all()

    def invalidate(self, number: int) -> bool:
        """Discard the bytes of the (released) shard; return whether it can be fetched again."""
        if self._paths[number] is not None:
            return False
        with self._change:
            name = self._name(number)
            if self._held.pop(name, None) is not None:
                (self._folder / name).unlink(missing_ok=True)
        return True

    def stop(self) -> None:
        """Cancel running fetches."""
        self._stop.set()

    def close(self) -> None:
        """Release the folder; the files stay for the next run."""
        self._stop.set()
        with self._change:
            self._change.wait_for(lambda: not self._coming, timeout=2)
        self._lock_file.release()

    def _name(self, number: int) -> str:
        return f"{self._entries[number].cache_name}.tar"

    def _check_window(self, window: int) -> None:
        sizes = sorted(
            (disk_usage(entry.bytes) for entry, path in zip(self._entries, self._paths, strict=True)
             if path is None), reverse=True,
        )  # fmt: skip
        need = sum(sizes[: window + 2])  # those being mixed, the next one, the one after it
        if need > self._limit:
            raise UserError(
                f"data.cache_gb: {(self._limit + _FOLDER) / 1e9:g} GB are too little, {window} "
                f"shards mixed at a time take up to {(need + _FOLDER) / 1e9:.3g} GB; give more, "
                "or a smaller --data.window"
            )

    def _lock_folder(self) -> FileLock:
        return lock(
            self._folder / ".lock",
            lambda _: UserError(
                f"{self._folder}: another process streams through this cache; give another "
                "--data.cache"
            ),
        )

    def _take_over(self) -> dict[str, int]:
        """Keep the files of an earlier run that are still needed; remove all others."""
        wanted = {f"{entry.cache_name}.tar": entry.bytes for entry in self._entries}
        held: dict[str, int] = {}
        found = [path for path in self._folder.iterdir() if path.suffix in (".tar", ".tmp")]
        for path in sorted(found, key=lambda path: path.lstat().st_mtime):
            state = path.lstat()
            fits = sum(held.values()) + disk_usage(state.st_size) <= self._limit
            is_wanted = wanted.get(path.name) == state.st_size and stat.S_ISREG(state.st_mode)
            if fits and is_wanted:
                held[path.name] = disk_usage(state.st_size)
            elif not stat.S_ISDIR(state.st_mode):
                path.unlink()
            elif path.name in wanted:
                raise UserError(f"{path}: a folder; remove it or use another --data.cache")
        return held

    def _use(self, name: str, fd: int) -> int:
        self._in_use[name] += 1
        self._awaited.discard(name)
        self._held[name] = self._held.pop(name)  # now the most recently used
        return fd

    def _reserve(self, name: str, number: int, urgent: bool) -> bool:
        """Make room for a shard and reserve it; False if there is none and it is not urgent."""
        need = disk_usage(self._entries[number].bytes)
        while sum(self._held.values()) + sum(self._coming.values()) + need > self._limit:
            idle = [held for held in self._held if self._in_use[held] <= 0]
            idle.sort(key=lambda held: held in self._awaited)
            if not idle or (idle[0] in self._awaited and not urgent):
                if urgent and self._coming:
                    self._change.wait()
                    continue
                if urgent:
                    raise UserError(f"data.cache_gb: too little for {self._locations[number]}")
                return False
            (self._folder / idle[0]).unlink(missing_ok=True)
            del self._held[idle[0]]
            self._awaited.discard(idle[0])
        self._coming[name] = need
        return True

    def _fetch_ahead(self, name: str, number: int) -> None:
        # errors are reported when the shard is needed and fetched again
        with suppress(UserError, DiskFull, FetchCancelled, OSError):
            os.close(self._fetch(name, number))

    def _fetch(self, name: str, number: int) -> int:
        """Fetch the reserved shard and give it its name; return an open descriptor."""
        size, done = self._entries[number].bytes, False
        fd, temporary = _nameless(self._folder)
        try:
            _allocate(fd, size)
            place = 0

            def write(chunk: bytes) -> None:
                nonlocal place
                view = memoryview(chunk)
                while view:
                    count = os.pwrite(fd, view, place)
                    view, place = view[count:], place + count

            def on_retry(reason: str) -> None:
                self._retries[name] = reason

            fetch(self._locations[number], size, write, self._timeout, self._stop, on_retry)
            _give_name(fd, temporary, self._folder / name)
            done = True
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(f"{self._folder}: no room for a shard of {size} bytes") from None
            raise
        finally:
            if not done:
                os.close(fd)
                if temporary:
                    temporary.unlink(missing_ok=True)
            with self._change:
                reserved = self._coming.pop(name)
                if done:
                    self._held[name] = reserved
                else:
                    self._awaited.discard(name)
                self._change.notify_all()
        return fd


def _nameless(folder: Path) -> tuple[int, Path | None]:
    """Open a new file without a name, or with a temporary one if the system does not support
    that."""
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644), None
    fd, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
    return fd, Path(name)


def _allocate(fd: int, size: int) -> None:
    """Allocate the disk space now, so that a full disk is detected before the first byte."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(fd, 0, size)


def _give_name(fd: int, temporary: Path | None, path: Path) -> None:
    path.unlink(missing_ok=True)
    if temporary:
        temporary.replace(path)
    else:
        folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # relative to a folder's descriptor, because only then Python follows the link
            os.link(str(fd), path, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

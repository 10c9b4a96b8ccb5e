"""Reads parts of files: local ones, on web servers (HTTP ranges) and in stores (fsspec).

A reader hops over the members of a tar: it reads little more than their headers. Where headers are
close together, it reads them in one request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol, TypeVar

import urllib3

from pipeline.contract import UserError, describe_os_error, local_path, open_regular
from training.streaming.http_ranges import BeyondEnd, http_range, read_body, stated_size
from training.streaming.schemes import (
    ATTEMPTS,
    HTTP,
    ConnectionDropped,
    check_scheme,
    file_system,
    from_store,
    given_up,
)

_FIRST = 512
"""The size of a tar's header."""
_BRIDGE = 512
"""A gap between two reads of at most this many bytes is read too: a request costs more."""
_SMALL, _FEW = 8 << 10, 8
"""If runs of headers begin at intervals of less than so many bytes on average, after the first few,
all bytes are read: hopping would save little."""
_MOST_AHEAD = 1 << 20
T = TypeVar("T")
_VALIDATORS = (
    "ETag", "etag", "sha256", "blob_id", "generation", "mtime", "LastModified", "last_modified",
    "updated", "modifyTime",
)  # fmt: skip
"""Keys of fsspec's `info` that change when a file is written."""


class RangeReader(Protocol):
    """A file: its size in bytes, and a text that changes when it is written (`validator`, empty if
    unknown)."""

    @property
    def size(self) -> int: ...
    @property
    def validator(self) -> str: ...
    def pread(self, count: int, offset: int) -> bytes: ...
    def close(self) -> None: ...


def open_ranges(location: str, timeout: float) -> RangeReader:
    """Open a path or URL to read parts of it, from the beginning to the end.

    Args:
        timeout: seconds without a response.

    Raises:
        UserError: it does not exist or cannot be read; the message names it.
    """
    path = local_path(location)
    if path is not None:
        try:
            return _Local(open_regular(path))
        except OSError as error:
            raise UserError(describe_os_error(error)) from None
    return _Http(location, timeout) if check_scheme(location) in HTTP else _Store(location)


class _Local:
    def __init__(self, fd: int) -> None:
        about = os.fstat(fd)
        self._fd, self.size, self.validator = fd, about.st_size, str(about.st_mtime_ns)

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def close(self) -> None:
        os.close(self._fd)


class _Ahead:
    """A window over a remote file that is read in order.

    Reads that are next to each other form a run. The length of a run is predicted from the one
    before it, because the members of samples follow each other in the same order.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size = read, size
        self._start, self._data = 0, b""
        self._run_start = self._run_end = self._run_before = self._runs = 0
        self._lengths: dict[int, int] = {}

    def pread(self, count: int, offset: int) -> bytes:
        count = max(0, min(count, self._size - offset))
        end = offset + count
        if not self._run_start <= offset <= self._run_end + _BRIDGE:
            length = self._run_end - self._run_start
            self._lengths[self._run_before] = length
            self._run_before, self._run_start, self._run_end = length, offset, offset
            self._runs += 1
        self._run_end = max(self._run_end, end)
        if not self._start <= offset <= end <= self._start + len(self._data):
            wanted = max(count, self._ahead(offset))
            self._start, self._data = offset, self._read(offset, min(wanted, self._size - offset))
        return self._data[offset - self._start : end - self._start]

    def _ahead(self, offset: int) -> int:
        """Return how many bytes to read at `offset`."""
        if self._runs > _FEW and offset < _SMALL * self._runs:
            return min(_MOST_AHEAD, offset)
        if offset == self._run_start:
            return self._lengths.get(self._run_before, _FIRST)
        return min(_MOST_AHEAD, offset - self._run_start)


class _Http:
    """A file on a web server. If it ignores ranges, the whole file is read, in order."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url, self._timeout = url, timeout
        self._body: _Body | None = None
        self.size, self.validator = -1, ""
        first = _retried(url, lambda: self._request(0, _FIRST))
        self._window = _Ahead(self._ranges, self.size)
        self._first = first

    def pread(self, count: int, offset: int) -> bytes:
        if self._body is not None:
            return self._body.pread(count, offset)
        if offset + count <= len(self._first):
            return self._first[offset : offset + count]
        return self._window.pread(count, offset)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()

    def _ranges(self, start: int, count: int) -> bytes:
        return _retried(self._url, lambda: self._request(start, count))

    def _request(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start`; or nothing, if the server sends the whole file."""
        answer, skipped = http_range(self._url, start, start + count, self._timeout)
        size = stated_size(answer)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if self.size >= 0 and size != self.size:
            answer.close()
            raise UserError(f"{self._url}: changed while it was read; run the command again")
        if self.size >= 0 and validator != self.validator:
            validator = ""  # mirrors of a site may give different ones
        if answer.status == 200:
            if start:
                answer.close()
                raise ConnectionDropped("the whole file in answer to a range")
            if size < 0:
                answer.close()
                raise UserError(f"{self._url}: the server does not tell its size; download it")
            self.size, self.validator = size, validator
            self._body = _Body(self._url, answer, size, self._timeout)
            return b""
        data = self._read(answer, skipped, count)
        if size < 0 or len(data) < min(count, size - start):
            raise ConnectionDropped("a short answer to a range")
        self.size, self.validator = size, validator
        return data

    def _read(self, answer: urllib3.BaseHTTPResponse, skipped: int, count: int) -> bytes:
        """Return the `count` bytes of a body after the first `skipped`; no more are kept."""
        if skipped > _MOST_AHEAD:
            answer.close()
            raise ConnectionDropped("answered another range")
        data = bytearray()
        with closing(read_body(answer, self._timeout)) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) >= skipped + count:
                    break
        return bytes(data[skipped : skipped + count])


class _Body:
    """The body of a response, read in order."""

    def __init__(
        self, url: str, answer: urllib3.BaseHTTPResponse, size: int, timeout: float
    ) -> None:
        self._url, self._answer, self._size = url, answer, size
        self._chunks = read_body(answer, timeout)
        self._start, self._data = 0, b""

    def pread(self, count: int, offset: int) -> bytes:
        end = min(offset + count, self._size)
        if offset < self._start:
            raise UserError(f"{self._url}: the server answers no ranges; download it")
        try:
            while self._start + len(self._data) < end:
                chunk = next(self._chunks, b"")
                if not chunk:
                    break
                past = max(0, min(len(self._data), offset - self._start))
                self._start, self._data = self._start + past, self._data[past:] + chunk
        except ConnectionDropped as error:
            raise UserError(f"{self._url}: {error}; run the command again") from None
        return self._data[offset - self._start : end - self._start]

    def close(self) -> None:
        self._answer.close()


class _Store:
    """A file in a store."""

    def __init__(self, url: str) -> None:
        self._url = url

        def start() -> tuple[Any, dict[str, Any]]:
            system, path = file_system(url)
            about = system.info(path)
            return system.open(path, "rb", cache_type="none"), about

        self._file, about = _retried(url, lambda: from_store(url, start))
        if about.get("type") == "directory" or not isinstance(about.get("size"), int):
            raise UserError(f"{url}: not a file")
        self.size = about["size"]
        known = [f"{about[name]}" for name in _VALIDATORS if about.get(name) is not None]
        self.validator = known[0] if known else ""
        self._window = _Ahead(self._ranges, self.size)

    def pread(self, count: int, offset: int) -> bytes:
        return self._window.pread(count, offset)

    def close(self) -> None:
        self._file.close()

    def _ranges(self, start: int, count: int) -> bytes:
        def read() -> bytes:
            self._file.seek(start)
            data: bytes = self._file.read(count)
            return data

        return _retried(self._url, lambda: from_store(self._url, read))


def _retried(url: str, request: Callable[[], T]) -> T:
    """Repeat a request whose connection was lost.

    Raises:
        UserError: it was lost `ATTEMPTS` times, or the URL cannot be read.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return request()
        except ConnectionDropped as error:
            if attempt == ATTEMPTS:
                raise UserError(given_up(url, error)) from None
            time.sleep(error.delay(attempt))
        except BeyondEnd:
            raise UserError(f"{url}: empty, or shorter than the server said") from None
    raise AssertionError

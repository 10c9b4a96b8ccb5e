"""Download from a URL with resumption after connection errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from urllib.parse import urlsplit

import urllib3

from pipeline.contract import (
    UserError,
    basic_authorization,
    finish_within,
    fsspec_arguments,
    short_reason,
    split_user,
)
from training.streaming.shards import DamagedShard

HTTP = frozenset({"http", "https"})
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "hf", "sftp", "ftp", "webhdfs", "hdfs"})
"""Schemes that use fsspec. Others, such as those that run commands, are refused."""

ATTEMPTS = 5
"""Consecutive attempts with hardly any bytes before the URL fails."""
BACKOFF = 0.2
"""Delay in seconds; doubled after each such attempt."""
_CHUNK = 1 << 16
_SLOWEST = 1024
"""Bytes per second; a connection that is slower than this for the timeout counts as lost."""


_POOL = urllib3.PoolManager(maxsize=4)


class ConnectionDropped(Exception):
    """The connection broke, or the server is busy: a retry can help."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class FetchCancelled(Exception):
    """The bytes are no longer needed."""


def check_scheme(url: str) -> None:
    """Raise unless a URL is HTTP or that of a store.

    Raises:
        UserError: it is not; the message names it.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise UserError(f"{url}: not a URL ({error})") from None
    if "::" in url or scheme not in HTTP | STORES:
        known = ", ".join(sorted(HTTP | STORES))
        raise UserError(f"{url}: not a scheme for shards; use file, {known}")


def fetch(
    url: str, size: int, write: Callable[[bytes], object], timeout: float, stop: threading.Event,
    on_retry: Callable[[str], object] = str,
) -> None:  # fmt: skip
    """Pass the first `size` bytes at `url` to `write`, in order.

    Args:
        timeout: seconds without a response, or with hardly any bytes, until a connection counts as
            lost.
        stop: cancels the fetch with `FetchCancelled` between two chunks.
        on_retry: takes the reason of each lost connection.

    Raises:
        UserError: the URL does not exist, is not readable, or gave nothing `ATTEMPTS` times in a
            row; the message names it.
        DamagedShard: the URL has fewer bytes than `size`.
    """
    check_scheme(url)
    read = _http if urlsplit(url).scheme in HTTP else _store
    have = failures = 0
    while have < size:
        before, wait, short = have, 0.0, False
        try:
            for chunk in _not_too_slow(read(url, have, timeout), timeout):
                if stop.is_set():
                    raise FetchCancelled(url)
                write(chunk[: size - have])
                have = min(size, have + len(chunk))
                if have == size:
                    return
            reason, short = f"ended after {have} of {size} bytes", True
        except ConnectionDropped as error:
            reason, wait = str(error), error.wait
        failures = 0 if have - before >= _SLOWEST else failures + 1
        if failures >= ATTEMPTS:
            kind = DamagedShard if short else UserError
            raise kind(f"{url}: {reason} (tried {ATTEMPTS} times)")
        on_retry(f"{reason}; retry {failures} of {ATTEMPTS - 1}" if failures else reason)
        if stop.wait(max(wait, BACKOFF * 2**failures if failures else 0.0)):
            raise FetchCancelled(url)


def _not_too_slow(chunks: Iterator[bytes], timeout: float) -> Iterator[bytes]:
    mark, came = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        came += len(chunk)
        now = time.monotonic()
        if now - mark >= timeout:
            if came < _SLOWEST * (now - mark):
                raise ConnectionDropped(f"{came} bytes in {now - mark:.0f} s")
            mark, came = now, 0


def _http(url: str, start: int, timeout: float) -> Iterator[bytes]:
    bare, user = split_user(url)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    headers |= basic_authorization(user)
    retries = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
    try:
        # a server that sends its headers in drops keeps to urllib3's timeout for ever
        answer = finish_within(
            timeout,
            lambda: _POOL.request(
                "GET", bare, headers=headers, preload_content=False, decode_content=False,
                timeout=urllib3.Timeout(connect=timeout, read=timeout), retries=retries,
            ),
        )  # fmt: skip
    except urllib3.exceptions.LocationValueError as error:
        raise UserError(f"{url}: {short_reason(error)}") from None
    except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
        raise ConnectionDropped(short_reason(error)) from None
    try:
        left = _to_skip(url, answer, start)
        while chunk := answer.read1(_CHUNK):
            yield chunk[left:]
            left = max(0, left - len(chunk))
    except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
        raise ConnectionDropped(short_reason(error)) from None
    finally:
        answer.close()


def _to_skip(url: str, answer: urllib3.BaseHTTPResponse, start: int) -> int:
    """Return how many bytes of the body precede `start`; a server may answer a range with the
    whole body."""
    if answer.status == 200:
        return start
    if answer.status == 206:
        begins = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if (first := _whole(begins)) is not None and first <= start:
            return start - first
        raise ConnectionDropped("answered another range")
    if answer.status == 416:
        raise DamagedShard(f"{url}: has no more than {start} bytes, the index says more")
    if answer.status in (408, 425, 429) or answer.status >= 500:
        after = answer.headers.get("Retry-After", "")
        raise ConnectionDropped(f"HTTP {answer.status}", min(60.0, _whole(after) or 0))
    raise UserError(f"{url}: HTTP {answer.status}")


def _whole(text: str) -> int | None:
    """Return the integer in a header; None if it is not one (or has more than 18 digits)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _store(url: str, start: int, timeout: float) -> Iterator[bytes]:  # noqa: ARG001
    import fsspec

    try:
        where, options = fsspec_arguments(url)
        with fsspec.open(where, "rb", **options) as file:
            file.seek(start)
            while chunk := file.read(1 << 20):
                yield chunk
    except FileNotFoundError:
        raise UserError(f"{url}: not there") from None
    except (ImportError, ValueError, PermissionError) as error:
        raise UserError(f"{url}: {short_reason(error)}") from None
    except Exception as error:  # noqa: BLE001 (the clients of stores raise errors of their own)
        raise ConnectionDropped(short_reason(error)) from None

"""Download from a URL with resumption after connection errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any

import urllib3

from pipeline.contract import UserError, short_reason
from training.streaming.http_ranges import MIN_SPEED, BeyondEnd, http_range, not_too_slow
from training.streaming.schemes import (
    HTTP,
    ConnectionDropped,
    check_scheme,
    file_system,
    from_store,
)
from training.streaming.shards import DamagedShard

ATTEMPTS = 5
"""Consecutive attempts with hardly any bytes before the URL fails."""
BACKOFF = 0.2
"""Delay in seconds; doubled after each such attempt."""
_CHUNK = 1 << 16


class FetchCancelled(Exception):
    """The bytes are no longer needed."""


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
    read = _http if check_scheme(url) in HTTP else _store
    have = failures = 0
    while have < size:
        before, wait, short = have, 0.0, False
        try:
            for chunk in not_too_slow(read(url, have, timeout), timeout):
                if stop.is_set():
                    raise FetchCancelled(url)
                write(chunk[: size - have])
                have = min(size, have + len(chunk))
                if have == size:
                    return
            reason, short = f"ended after {have} of {size} bytes", True
        except ConnectionDropped as error:
            reason, wait = str(error), error.wait
        failures = 0 if have - before >= MIN_SPEED else failures + 1
        if failures >= ATTEMPTS:
            kind = DamagedShard if short else UserError
            raise kind(f"{url}: {reason} (tried {ATTEMPTS} times)")
        on_retry(f"{reason}; retry {failures} of {ATTEMPTS - 1}" if failures else reason)
        if stop.wait(max(wait, BACKOFF * 2**failures if failures else 0.0)):
            raise FetchCancelled(url)


def _http(url: str, start: int, timeout: float) -> Iterator[bytes]:
    try:
        answer, left = http_range(url, start, None, timeout)
    except BeyondEnd:
        raise DamagedShard(f"{url}: has no more than {start} bytes, the index says more") from None
    try:
        while chunk := answer.read1(_CHUNK):
            yield chunk[left:]
            left = max(0, left - len(chunk))
    except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
        raise ConnectionDropped(short_reason(error)) from None
    finally:
        answer.close()


def _store(url: str, start: int, timeout: float) -> Iterator[bytes]:  # noqa: ARG001
    def begin() -> Any:
        system, path = file_system(url)
        file = system.open(path, "rb")
        file.seek(start)
        return file

    with from_store(url, begin) as file:
        while chunk := from_store(url, lambda: file.read(1 << 20)):
            yield chunk

"""Requests of parts of files on web servers, and the bodies of their responses."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from http.client import HTTPException

import urllib3

from pipeline.contract import (
    UserError,
    basic_authorization,
    finish_within,
    short_reason,
    split_user,
)
from training.streaming.schemes import ConnectionDropped

MIN_SPEED = 1024
"""Bytes per second; a connection that is slower than this for the timeout counts as lost."""
_MOST_WAIT = 60.0
_CHUNK = 1 << 16
_LOST = (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)
"""What the client raises if a connection breaks, or a response is not HTTP."""
_POOL = urllib3.PoolManager(maxsize=16)


class BeyondEnd(Exception):
    """The file has no bytes at the start of the range."""


def http_range(
    url: str, start: int, stop: int | None, timeout: float
) -> tuple[urllib3.BaseHTTPResponse, int]:
    """Request the bytes from `start` to `stop` (None: to the end) of a URL.

    Returns:
        The response, whose body is not read yet, and how many bytes of it precede `start`: a server
        may answer a range with the whole file.

    Raises:
        ConnectionDropped: a retry can help.
        BeyondEnd: the file is not longer than `start`.
        UserError: the server refuses, or the URL is invalid.
    """
    bare, user = split_user(url)
    headers = {"Accept-Encoding": "identity"} | basic_authorization(user)
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
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
    except _LOST as error:
        raise ConnectionDropped(short_reason(error)) from None
    try:
        return answer, _skipped(url, answer, start)
    except BaseException:
        answer.close()
        raise


def _skipped(url: str, answer: urllib3.BaseHTTPResponse, start: int) -> int:
    """Return how many bytes of the body precede `start`."""
    if answer.status == 200:
        return start
    if answer.status == 206:
        begins = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if (first := _whole(begins)) is not None and first <= start:
            return start - first
        raise ConnectionDropped("answered another range")
    if answer.status == 416:
        raise BeyondEnd(url)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        after = answer.headers.get("Retry-After", "")
        raise ConnectionDropped(f"HTTP {answer.status}", min(_MOST_WAIT, _whole(after) or 0))
    raise UserError(f"{url}: HTTP {answer.status}")


def read_body(answer: urllib3.BaseHTTPResponse, timeout: float) -> Generator[bytes]:
    """Yield the body of a response in chunks, and close it at the end.

    Raises:
        ConnectionDropped: the connection broke, or is too slow, see `not_too_slow`.
    """
    try:
        yield from not_too_slow(iter(lambda: answer.read1(_CHUNK), b""), timeout)
    except _LOST as error:
        raise ConnectionDropped(short_reason(error)) from None
    finally:
        if answer.length_remaining != 0:  # the connection cannot be used again
            answer.close()
        answer.release_conn()


def not_too_slow(chunks: Iterator[bytes], timeout: float) -> Iterator[bytes]:
    """Yield the chunks of a body.

    Raises:
        ConnectionDropped: it is slower than `MIN_SPEED` for `timeout` seconds.
    """
    mark, came = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        came += len(chunk)
        now = time.monotonic()
        if now - mark >= timeout:
            if came < MIN_SPEED * (now - mark):
                raise ConnectionDropped(f"{came} bytes in {now - mark:.0f} s")
            mark, came = now, 0


def stated_size(answer: urllib3.BaseHTTPResponse) -> int:
    """Return the size of the file that a response states; -1 if it does not."""
    if answer.status == 206:
        text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        text = answer.headers.get("Content-Length", "")
    size = _whole(text)
    return -1 if size is None else size


def _whole(text: str) -> int | None:
    """Return the integer in a header; None if it is not one (or has more than 18 digits)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
